// Package ask invokes the reconcile function and prints its answer: the drift of the fleet as a table with each difference below its row,
// or doctor's checks with a remedy for each failed one. In mode teardown it asks for the deployment's name, and then has the function
// remove everything that the deployment made.
package ask

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// The exit statuses.
const (
	done   = 0 // nothing is left to do
	undone = 1 // something is left to do: drift was found, a repair failed or was blocked, a check failed
	broken = 2 // the command failed
)

// Options say which function is invoked, and with which input.
type Options struct {
	Of    deployed.Choice
	Input reconcile.Input // without Gone
	Gone  reconcile.Gone  // the operator's word about accounts and instances that no longer exist; zero for none
	JSON  bool            // print the function's answer unchanged
}

// Streams are the operator's terminal. Everything that is not the answer goes to Progress.
type Streams struct {
	In            io.Reader
	Out, Progress io.Writer
}

// input returns the function's input.
func (o Options) input() input {
	in := input{Input: o.Input}
	if len(o.Gone.Accounts)+len(o.Gone.InstanceIDs)+o.Gone.AtMost > 0 {
		in.Gone = &o.Gone
	}
	return in
}

func (o Options) check() error {
	in := o.input()
	switch {
	case !slices.Contains([]reconcile.Mode{reconcile.Detect, reconcile.Correct, reconcile.Doctor, reconcile.Teardown}, in.Mode):
		return fmt.Errorf("--mode %s: the modes are detect, correct, doctor and teardown", in.Mode)
	case in.Confirm != "" && in.Mode != reconcile.Teardown:
		return errors.New("--yes is for a teardown")
	case in.Force && in.Mode != reconcile.Correct:
		return fmt.Errorf("--force is for --mode correct: %s deletes nothing", in.Mode)
	case (in.Mode == reconcile.Doctor || in.Mode == reconcile.Teardown) && (len(in.InstanceIDs) > 0 || in.Profile != ""):
		return fmt.Errorf("--mode %s is for the deployment as a whole: leave --instance and --profile out", in.Mode)
	case in.Gone != nil:
		return checkGone(in.Input)
	}
	return nil
}

// checkGone returns an error for flags of a removal by word that the function would refuse.
func checkGone(in reconcile.Input) error {
	switch {
	case in.Mode != reconcile.Detect && in.Mode != reconcile.Correct:
		return errors.New("--gone-account and --gone-instance are for --mode detect and correct")
	case len(in.Gone.Accounts)+len(in.Gone.InstanceIDs) == 0:
		return errors.New("--at-most is for --gone-account and --gone-instance")
	case in.Mode == reconcile.Correct && (!in.Force || in.Gone.AtMost < 1):
		return errors.New("with --mode correct, --gone-… needs --force, and --at-most with the number that --mode detect reports")
	case len(in.InstanceIDs) > 0 || in.Profile != "":
		return errors.New("--gone-… names its accounts and instances itself: leave --instance and --profile out")
	}
	return nil
}

// Run finds and invokes the function, prints its answer and returns the exit status: 0 if nothing is left to do, 1 if something is, 2 with
// an error if the command itself failed.
func Run(ctx context.Context, o Options, to Streams) (int, error) {
	if err := o.check(); err != nil {
		return broken, err
	}
	found, err := o.Of.Find(ctx)
	if err != nil {
		return broken, err
	}
	a := asking{function: newFunction(found), input: o.input(), json: o.JSON, Streams: to}
	switch o.Input.Mode {
	case reconcile.Doctor:
		return a.examine(ctx)
	case reconcile.Teardown:
		return a.tearDown(ctx)
	default:
		return a.compare(ctx)
	}
}

// asking is one run of the command.
type asking struct {
	function
	Streams
	input input
	json  bool
}

// compare has the function compare the fleet.
func (a asking) compare(ctx context.Context) (int, error) {
	whole, raw, err := a.reconcile(ctx, a.input, a.Progress)
	if err != nil {
		return broken, err
	}
	if err := a.print(raw, func() error { return printAnswer(a.Out, whole) }); err != nil {
		return broken, err
	}
	// A failed row is an instance that the word does not remove, such as one that EC2 shows as running.
	if n := whole.Summary.Orphaned; a.input.Gone != nil && a.input.Mode == reconcile.Detect && n > whole.Summary.Failed {
		fmt.Fprintf(a.Progress, "reconcile: to remove them, run again with --mode correct --force --at-most %d\n", n)
	}
	return whole.status(), nil
}

// examine has the function make doctor's checks.
func (a asking) examine(ctx context.Context) (int, error) {
	r, raw, err := a.report(ctx, a.input)
	if err != nil {
		return broken, err
	}
	if err := a.print(raw, func() error { return printReport(a.Out, r) }); err != nil {
		return broken, err
	}
	if !r.OK {
		return undone, nil
	}
	return done, nil
}

// report has the function make doctor's checks and returns its answer, also as JSON.
func (a asking) report(ctx context.Context, in input) (r doctor.Report, raw []byte, err error) {
	if raw, err = a.invoke(ctx, in); err != nil {
		return r, nil, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, nil, fmt.Errorf("reading the answer of function %s: %w", a.name, err)
	}
	return r, raw, nil
}

// typed asks the operator and returns the line that is typed, without white space around it; empty at the end of the input.
func (a asking) typed(question string) (string, error) {
	fmt.Fprint(a.Progress, question)
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// print prints an answer: raw as JSON on request, otherwise by calling asTable.
func (a asking) print(raw []byte, asTable func() error) error {
	if a.json {
		asTable = func() error { return text.PrintJSON(a.Out, raw) }
	}
	if err := asTable(); err != nil {
		return fmt.Errorf("printing the answer of function %s: %w", a.name, err)
	}
	return nil
}
