package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// OrderOptions say which instances are put into quarantine, or released from it.
type OrderOptions struct {
	Of              deployed.Choice
	Mode            reconcile.Mode // quarantine or release
	Instances       []string
	Reason          string
	By              string // the person who orders it; empty: the identity of the credentials
	Account, Region string // the place of an instance that the functions do not know
	JSON            bool
}

// input returns the function's input, or an error for one that the function would refuse.
func (o OrderOptions) input() (reconcile.Input, error) {
	in := reconcile.Input{Mode: o.Mode, InstanceIDs: o.Instances, Reason: o.Reason, By: o.By, Account: o.Account, Region: o.Region}
	if o.Mode == reconcile.Quarantine && o.Reason == "" {
		return in, errors.New("--reason is missing: it is stored with the quarantine, and shown to the next person")
	}
	named := in
	if named.By == "" {
		named.By = "-"
	}
	return in, reconcile.CheckInput(named)
}

// Order has the function put instances into quarantine, or release them, and prints the results. It returns the exit status: 0 if the order
// was carried out for each instance, 1 if not, 2 with an error if the command itself failed.
func Order(ctx context.Context, o OrderOptions, to Streams) (int, error) {
	in, err := o.input()
	if err != nil {
		return broken, err
	}
	found, err := o.Of.Find(ctx)
	if err != nil {
		return broken, err
	}
	if in.By == "" {
		if in.By, err = callerOf(ctx, found.Config); err != nil {
			return broken, err
		}
	}
	a := asking{function: newFunction(found), json: o.JSON, Streams: to}
	raw, err := a.invoke(ctx, input{Input: in})
	if err != nil {
		return broken, err
	}
	var answer reconcile.OrderAnswer
	if err := json.Unmarshal(raw, &answer); err != nil {
		return broken, fmt.Errorf("reading the answer of function %s: %w", a.name, err)
	}
	if err := a.print(raw, func() error { return printOrder(to.Out, answer) }); err != nil {
		return broken, err
	}
	if !answer.OK {
		return undone, nil
	}
	return done, nil
}

// callerTimeout bounds the question to STS.
const callerTimeout = 10 * time.Second

// callerOf returns the ARN of the credentials.
func callerOf(ctx context.Context, c aws.Config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callerTimeout)
	defer cancel()
	who, err := sts.NewFromConfig(c).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", fmt.Errorf("asking STS who orders this (or name the person with --by): %w", err)
	}
	return aws.ToString(who.Arn), nil
}

// printOrder prints the results of an order: a table, and then each error and next step.
func printOrder(out io.Writer, a reconcile.OrderAnswer) error {
	var b strings.Builder
	rows := [][]string{{"INSTANCE", "STATUS", "TOKENS CUT AT", "ENTITIES", "OBJECTS", "PROFILE"}}
	for _, i := range a.Instances {
		rows = append(rows, []string{i.InstanceID, string(i.Status), stamp(i.CutAt), strconv.Itoa(i.Cut), strconv.Itoa(len(i.Objects)), orDash(i.Profile)})
	}
	columns(&b, rows)
	for _, i := range a.Instances {
		fmt.Fprintf(&b, "\n%s:\n", text.Printable(i.InstanceID))
		if i.Before && a.Mode == reconcile.Quarantine {
			b.WriteString("  it was in quarantine before, and keeps its first mark\n")
		}
		if q := i.Quarantine; q != nil {
			indented(&b, "  ", quarantineLine(q))
		}
		verb := "removed: "
		if a.Mode == reconcile.Release {
			verb = "granted: "
		}
		for _, path := range i.Objects {
			indented(&b, "  ", verb+path)
		}
		if i.Error != "" {
			indented(&b, "  error: ", i.Error)
		}
		indented(&b, "  next: ", i.Next)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// quarantineLine returns the words for a mark.
func quarantineLine(q *reconcile.SeenQuarantine) string {
	line := fmt.Sprintf("in quarantine since %s, by %s (%s): %s", stamp(&q.Since), q.By, q.Source, q.Reason)
	if q.EndedAt != nil {
		line += "; it ended by " + stamp(q.EndedAt)
	}
	if q.ReleasedAt == nil {
		return line
	}
	line = "was " + line + "; released at " + stamp(q.ReleasedAt) + ", by " + q.ReleasedBy
	if q.ReleaseReason != "" {
		line += ": " + q.ReleaseReason
	}
	return line
}
