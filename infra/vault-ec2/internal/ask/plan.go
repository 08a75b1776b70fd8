package ask

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// PlanOptions say which profiles are rehearsed, and where.
type PlanOptions struct {
	Of     deployed.Choice
	Folder string // of the profiles
	JSON   bool   // print the function's answers as one object
}

// shownRows is the number of differences that a plan shows.
const shownRows = 20

// Plan has the function compare the fleet by the profiles of a folder, and examine the deployment by them. It changes nothing. It returns
// the exit status: 0 if nothing would change, 1 if something would or a check fails, 2 with an error if the command itself failed.
func Plan(ctx context.Context, o PlanOptions, to Streams) (int, error) {
	b, err := pack(o.Folder)
	if err != nil {
		return broken, err
	}
	found, err := o.Of.Find(ctx)
	if err != nil {
		return broken, err
	}
	a := asking{function: newFunction(found), json: o.JSON, Streams: to}
	r, err := a.rehearse(ctx, b)
	if err != nil {
		return broken, err
	}
	if err := a.print(r.raw, func() error { return r.print(to.Out) }); err != nil {
		return broken, err
	}
	if r.answer.Touched != nil || r.isUnsure() || len(r.failed) > 0 {
		return undone, nil
	}
	return done, nil
}

// pack returns the profiles of a folder.
func pack(folder string) (bundle.Bundle, error) {
	if _, err := os.ReadDir(folder); err != nil {
		return bundle.Bundle{}, fmt.Errorf("reading the folder of the profiles: %w", err)
	}
	b, err := bundle.Pack(os.DirFS(folder))
	if err != nil {
		return b, fmt.Errorf("the folder %s: %w", folder, err)
	}
	return b, nil
}

// rehearsal is what profiles would change.
type rehearsal struct {
	digest string
	answer answer
	failed []doctor.Check // those that fail because of the profiles, or of the deployment as a whole if that is unknown
	bars   bool           // a failed check keeps the profiles from being activated
	raw    []byte         // all of it as JSON
	softer []string       // what profiles leave: drift that is not repaired, and objects that stay at a removal
}

// rehearse has the function compare the fleet and examine the deployment by a bundle.
func (a asking) rehearse(ctx context.Context, b bundle.Bundle) (rehearsal, error) {
	fmt.Fprintf(a.Progress, "comparing the fleet by the profiles %s\n", bundle.Short(b.Digest))
	r := rehearsal{digest: b.Digest, softer: softer(b)}
	var raw []byte
	var err error
	if r.answer, raw, err = a.reconcile(ctx, input{Input: reconcile.Input{Mode: reconcile.Detect, Profiles: b.Packed}}, a.Progress); err != nil {
		return r, err
	}
	present, _, unknown := a.report(ctx, input{Input: reconcile.Input{Mode: reconcile.Doctor}}) // without active profiles there is no report
	wanted, _, err := a.report(ctx, input{Input: reconcile.Input{Mode: reconcile.Doctor, Profiles: b.Packed}})
	if err != nil {
		return r, err
	}
	isNeeded := func(c doctor.Check) bool { return slices.Contains(needed(), c.Name) }
	r.failed = slices.DeleteFunc(wanted.Checks, func(c doctor.Check) bool {
		return c.OK || (slices.Contains(present.Checks, c) && !isNeeded(c))
	})
	r.bars = (unknown == nil && len(r.failed) > 0) || slices.ContainsFunc(r.failed, isNeeded)
	r.raw, err = json.Marshal(map[string]any{"digest": b.Digest, "comparison": json.RawMessage(raw), "failedChecks": r.failed})
	return r, err
}

// softer returns what the profiles of a bundle leave: drift that is only shown or ignored, and objects that stay in Vault at a
// removal. Profiles that do not load leave nothing: the function says why.
func softer(b bundle.Bundle) []string {
	set, err := grant.LoadDeployed(b.Files, grant.DefaultRules())
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range set.Profiles {
		var modes []string
		for _, m := range p.Reconcile.Softer() {
			modes = append(modes, m.String())
		}
		if len(modes) > 0 {
			out = append(out, "not repaired: drift of profile "+p.Name+": "+strings.Join(modes, ", "))
		}
		if names := p.Retained(); len(names) > 0 {
			out = append(out, "retained: when a grant of profile "+p.Name+" is removed, these stay in Vault: "+strings.Join(names, ", "))
		}
	}
	return out
}

// needed are the checks without which it is unknown whether the functions have the rights that profiles need.
func needed() []string { return []string{"vault", "vault namespace", "vault login", "vault rights"} }

// isUnsure reports whether the fleet was not compared as a whole.
func (r rehearsal) isUnsure() bool { return r.answer.Blocked || r.answer.Summary.Failed > 0 }

// print prints the counts, the first differences and the failed checks.
func (r rehearsal) print(out io.Writer) error {
	var b strings.Builder
	s := r.answer.Scanned
	fmt.Fprintf(&b, "profiles %s, compared with %s in EC2 and %s\n\n", r.digest, count(s.Instances, "instance"), count(s.Records, "ledger record"))
	if t := r.answer.Touched; t != nil {
		fmt.Fprintf(&b, "they touch %s: %s\n\n", count(t.Instances, "instance"), strings.Join(touched(t), ", "))
		rows := r.answer.Drift[:min(len(r.answer.Drift), shownRows)]
		table(&b, rows)
		if more := len(r.answer.Drift) - len(rows); more > 0 || r.answer.Truncated {
			b.WriteString("and more; --output json has the first 200\n")
		}
	} else if !r.isUnsure() {
		b.WriteString("they change nothing\n")
	}
	for _, s := range r.softer {
		indented(&b, "", s)
	}
	quarantined(&b, r.answer.Quarantined)
	places(&b, r.answer.Places)
	if r.answer.Blocked {
		indented(&b, "BLOCKED: ", r.answer.BlockedReason)
	}
	if len(r.failed) > 0 {
		fmt.Fprintf(&b, "\nwith these profiles %s not OK:\n", count(len(r.failed), "check"))
		for _, c := range r.failed {
			indented(&b, "  "+text.Printable(c.Name)+": ", c.Detail+" ("+c.Remedy+")")
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// touched returns the counts of a rehearsal in words: instances that lose or gain their grant first, then objects by kind.
func touched(t *reconcile.Touched) []string {
	out := []string{fmt.Sprintf("%d without a grant get one", t.Gaining), fmt.Sprintf("%d lose theirs", t.Losing)}
	kinds := []struct {
		kind grant.Kind
		word string
	}{{grant.KindPolicy, "policy"}, {grant.KindPKIRole, "PKI role"}, {grant.KindSSHRole, "SSH role"}, {grant.KindAuthRole, "auth role"}, {grant.KindGeneric, "generic object"}}
	for _, k := range kinds {
		for _, reason := range []reconcile.Reason{reconcile.Missing, reconcile.Changed, reconcile.Orphaned, reconcile.Conflicting} {
			if n := t.Objects[k.kind][reason]; n > 0 {
				out = append(out, count(n, k.word)+" "+string(reason))
			}
		}
	}
	return out
}
