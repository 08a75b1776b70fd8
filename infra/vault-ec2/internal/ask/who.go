package ask

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/holders"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// WhoOptions say what is looked for.
type WhoOptions struct {
	Of          deployed.Choice
	Names       []string
	Certificate string // a PEM file whose names are looked for; empty for none
	Current     bool
	JSON        bool
}

// whoAnswer is the function's answer. The cursor is unread, as in answer.
type whoAnswer struct {
	holders.Answer
	Cursor json.RawMessage `json:"cursor,omitempty"`
}

// FindHolders has the function find holders and prints them. It returns the exit status: 0 if each name has a holder, now or before, 1 if
// one has none, 2 with an error if the command itself failed.
func FindHolders(ctx context.Context, o WhoOptions, to Streams) (int, error) {
	var cert *x509.Certificate
	if o.Certificate != "" {
		var err error
		if cert, err = readCertificate(o.Certificate); err != nil {
			return broken, err
		}
		o.Names = slices.Concat(o.Names, namesIn(cert))
	}
	if len(o.Names) == 0 {
		return broken, errors.New("name what to look for: a name, an address, an object in Vault, or --certificate with a file that has names in it")
	}
	found, err := o.Of.Find(ctx)
	if err != nil {
		return broken, err
	}
	a := asking{function: newFunction(found), json: o.JSON, Streams: to}
	whole, err := a.find(ctx, input{Input: reconcile.Input{Mode: reconcile.Who, Names: o.Names, Current: o.Current}})
	if err != nil {
		return broken, err
	}
	raw, err := json.Marshal(whole)
	if err != nil {
		return broken, fmt.Errorf("writing the answer: %w", err)
	}
	if err := a.print(raw, func() error { return printHolders(to.Out, whole, cert) }); err != nil {
		return broken, err
	}
	isHeld := func(asked holders.Asked) bool {
		return slices.ContainsFunc(whole.Holders, func(h holders.Holder) bool { return h.Name == asked.Name })
	}
	if len(whole.Unread) > 0 || slices.ContainsFunc(whole.Asked, func(asked holders.Asked) bool { return !isHeld(asked) }) {
		return undone, nil
	}
	return done, nil
}

// find invokes the function until the whole ledger is read.
func (a asking) find(ctx context.Context, in input) (whole holders.Answer, err error) {
	err = a.untilWhole(ctx, in, a.Progress, func(n int, raw []byte) (json.RawMessage, string, error) {
		var part whoAnswer
		if err := json.Unmarshal(raw, &part); err != nil {
			return nil, "", fmt.Errorf("reading the answer of function %s: %w", a.name, err)
		}
		if n == 1 {
			whole = part.Answer
		} else {
			whole = whole.Join(part.Answer)
		}
		return part.Cursor, fmt.Sprintf("who: the ledger takes more than invocation %d (%d items so far); continuing", n, whole.Scanned), nil
	})
	return whole, err
}

// printHolders prints who holds and who held each name, and the instances with their objects and the filter for Vault's audit log. cert is
// the certificate whose names were looked for; nil for none.
func printHolders(out io.Writer, a holders.Answer, cert *x509.Certificate) error {
	var b strings.Builder
	if cert != nil {
		fmt.Fprintf(&b, "certificate %s of %s, issued by %s, valid from %s to %s\n\n", serialOf(cert), text.Printable(orDash(cert.Subject.CommonName)),
			text.Printable(cert.Issuer.String()), stamp(&cert.NotBefore), stamp(&cert.NotAfter))
	}
	rows := [][]string{{"NAME", "HELD", "INSTANCE", "UNTIL", "BY", "BELOW"}}
	for _, asked := range a.Asked {
		n := len(rows)
		for _, h := range a.Holders {
			if h.Name != asked.Name {
				continue
			}
			held := "before"
			if h.Now {
				held = "now"
			}
			rows = append(rows, []string{h.Name, held, h.InstanceID, stamp(h.Until), string(h.Basis), orDash(h.Under)})
		}
		if len(rows) == n {
			rows = append(rows, []string{asked.Name, "no", "-", "-", "-", orDash(asked.Error)})
		}
	}
	columns(&b, rows)
	if all := holdersOfAll(a); all != "" {
		b.WriteString("\nall of these names: " + text.Printable(all) + "\n")
	}
	for _, i := range a.Instances {
		b.WriteString("\n")
		printInstance(&b, i)
	}
	b.WriteString("\n")
	switch {
	case a.Complete:
		b.WriteString("the ledger keeps what was removed for 30 days; before that, Vault's audit log has it\n")
	case len(a.Unread) == 0:
		b.WriteString("only the claims of now were read: without --current, former holders and shared names are found too\n")
	}
	for _, u := range a.Unread {
		indented(&b, "not read: ", u.What+": "+u.Error)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// holdersOfAll returns the instances that hold or held each of several names; empty if there is none, or one name.
func holdersOfAll(a holders.Answer) string {
	if len(a.Asked) < 2 {
		return ""
	}
	var all []string
	for _, i := range a.Instances {
		holds := func(asked holders.Asked) bool {
			return slices.ContainsFunc(a.Holders, func(h holders.Holder) bool { return h.Name == asked.Name && h.InstanceID == i.InstanceID })
		}
		if !slices.ContainsFunc(a.Asked, func(asked holders.Asked) bool { return !holds(asked) }) {
			all = append(all, i.InstanceID)
		}
	}
	return strings.Join(all, ", ")
}

// printInstance prints one instance, its objects in Vault and the filter for Vault's audit log.
func printInstance(b *strings.Builder, i holders.Instance) {
	state := "no record"
	if i.State != "" {
		state = fmt.Sprintf("%s, first recorded %s", i.State, stamp(i.CreatedAt))
	}
	if i.DeletedAt != nil {
		state += ", removed by " + stamp(i.DeletedAt)
	}
	if i.EC2 != "" {
		state += ", in EC2: " + i.EC2
	}
	fmt.Fprintf(b, "%s: %s\n", text.Printable(i.InstanceID), text.Printable(state))
	if i.State != "" {
		fmt.Fprintf(b, "  account %s, region %s, profile %s\n", text.Printable(i.Account), text.Printable(i.Region), text.Printable(orDash(i.Profile)))
		fmt.Fprintf(b, "  name %s, addresses %s\n", text.Printable(orDash(i.FQDN)), text.Printable(orDash(strings.Join(i.Addresses, ", "))))
	}
	if q := i.Quarantine; q != nil {
		line := fmt.Sprintf("in quarantine since %s, by %s: %s", stamp(&q.Since), q.By, q.Reason)
		if q.ReleasedAt != nil {
			line = "was " + line + "; released at " + stamp(q.ReleasedAt)
		}
		indented(b, "  ", line)
	}
	for _, o := range i.Objects {
		exists := ""
		if o.InVault != nil && !*o.InVault {
			exists = " (not in Vault)"
		}
		if o.Retained {
			exists += " (retained)"
		}
		fmt.Fprintf(b, "  %s%s\n", text.Printable(o.Path), exists)
	}
	fmt.Fprintf(b, "  in Vault's audit log:\n    jq -c '%s' audit.log\n", text.Printable(i.AuditFilter))
}
