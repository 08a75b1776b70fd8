package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// ExplainOptions say which instance is explained.
type ExplainOptions struct {
	Of              deployed.Choice
	Instance        string
	Account, Region string // where the instance is, if the functions do not know it
	JSON            bool
}

// Explain has the function explain an instance and prints the explanation. It returns the exit status: 0 if the instance has its grant, or
// has none and is gone, 1 for any other, 2 with an error if the command itself failed.
func Explain(ctx context.Context, o ExplainOptions, to Streams) (int, error) {
	if (o.Account == "") != (o.Region == "") {
		return broken, errors.New("--account and --region go together")
	}
	found, err := o.Of.Find(ctx)
	if err != nil {
		return broken, err
	}
	a := asking{function: newFunction(found), json: o.JSON, Streams: to}
	raw, err := a.invoke(ctx, input{Input: reconcile.Input{
		Mode: reconcile.Explain, InstanceIDs: []string{o.Instance}, Account: o.Account, Region: o.Region,
	}})
	if err != nil {
		return broken, err
	}
	var e reconcile.Explanation
	if err := json.Unmarshal(raw, &e); err != nil {
		return broken, fmt.Errorf("reading the answer of function %s: %w", a.name, err)
	}
	if err := a.print(raw, func() error { return printExplanation(to.Out, e) }); err != nil {
		return broken, err
	}
	if !e.OK {
		return undone, nil
	}
	return done, nil
}

// page is a text with a label at the beginning of each section.
type page struct {
	strings.Builder
	label string // of the next line; empty once it was printed
}

// section begins a section.
func (p *page) section(label string) { p.label = label }

// line prints a line of the section. Its values come from others.
func (p *page) line(format string, args ...any) {
	fmt.Fprintf(p, "%-10s %s\n", p.label, text.Clip(text.Printable(fmt.Sprintf(format, args...)), lineWidth*4))
	p.label = ""
}

// printExplanation prints an explanation: the verdict and the next step, then what was seen of the instance.
func printExplanation(out io.Writer, e reconcile.Explanation) error {
	var p page
	fmt.Fprintf(&p, "%s: %s\n", text.Printable(e.InstanceID), text.Printable(string(e.Status)))
	indented(&p.Builder, "  ", e.Summary)
	indented(&p.Builder, "next: ", e.Next)
	for _, u := range e.Unread {
		indented(&p.Builder, "not read: ", u.What+": "+u.Error)
	}
	if e.Status != reconcile.Malformed {
		p.WriteString("\n")
		p.ec2(e)
		p.profiles(e)
		p.record(e.Record)
		p.login(e)
		p.objects(e.Objects)
		p.names(e)
		p.drift(e)
	}
	_, err := io.WriteString(out, p.String())
	return err
}

// ec2 prints what AWS says.
func (p *page) ec2(e reconcile.Explanation) {
	p.section("EC2")
	i := e.EC2
	if i == nil {
		p.line("not shown; asked in: %s", orDash(strings.Join(e.Asked, "; ")))
		return
	}
	p.line("%s, launched %s, in account %s, region %s", i.State, stamp(&i.LaunchTime), i.Account, i.Region)
	if !i.Compared {
		p.line("reconcile does not compare this account and region by itself")
	}
	p.line("name %s, addresses %s, image %s, %s", orDash(i.PrivateDNSName), orDash(strings.Join(i.Addresses, ", ")), orDash(i.ImageID), orDash(i.VPCID))
	p.line("instance profile %s", orDash(i.InstanceProfile))
	role := orDash(i.Role)
	if i.RoleUnconfirmed {
		role += " (from an earlier answer: IAM does not answer)"
	}
	p.line("role %s", role)
	if len(i.Tags) > 0 {
		p.line("tags that a profile uses: %s", strings.Join(pairs(i.Tags), ", "))
	}
	p.section("group")
	if e.Group == nil {
		p.line("-")
		return
	}
	held := ""
	if strings.HasSuffix(e.Group.State, ":Wait") {
		held = ": a lifecycle hook holds the instance"
	}
	p.line("%s, %s%s", e.Group.Name, e.Group.State, held)
}

// profiles prints which profile matches, and why the others do not.
func (p *page) profiles(e reconcile.Explanation) {
	p.section("profiles")
	if e.Profiles != "" {
		p.line("version %s", bundle.Short(e.Profiles))
	}
	switch {
	case e.EC2 == nil:
		p.line("not compared: EC2 does not show the instance")
	case len(e.Matches) == 0:
		p.line("none matches")
	default:
		p.line("%s matches", strings.Join(e.Matches, ", "))
	}
	for _, m := range e.Misses {
		p.line("not %s: %s", m.Profile, strings.Join(m.Unmet, "; "))
	}
	p.section("grant")
	if g := e.Grant; g != nil {
		p.line("by profile %s, for the name %s, login of type %s", g.Profile, g.FQDN, g.AuthType)
		for _, kind := range slices.Sorted(maps.Keys(g.Modes)) {
			p.line("drift of its %s objects: %s", kind, driftWords(g.Modes[kind]))
		}
		if len(g.Retained) > 0 {
			p.line("stays in Vault when the grant is removed: %s", strings.Join(g.Retained, ", "))
		}
	} else {
		p.line("none by the profiles")
	}
	if r := e.Refusal; r != nil {
		p.line("refused since %s: %s", stamp(r.Since), r.Error)
	}
}

// driftWords returns what is done about drift in a mode.
func driftWords(m grant.DriftMode) string {
	switch m {
	case grant.DriftDetect:
		return "shown, and not repaired (detect)"
	case grant.DriftIgnore:
		return "neither shown nor repaired (ignore)"
	case grant.DriftCorrect:
	}
	return string(m)
}

// record prints the ledger's record.
func (p *page) record(r *reconcile.SeenRecord) {
	p.section("ledger")
	if r == nil {
		p.line("no record")
		return
	}
	p.line("%s since %s, first recorded %s, profile %s", r.State, stamp(&r.UpdatedAt), stamp(&r.CreatedAt), orDash(r.Profile))
	p.line("name %s, addresses %s, account %s, region %s", orDash(r.FQDN), orDash(strings.Join(r.Addresses, ", ")), r.Account, r.Region)
	for _, t := range []struct {
		what string
		at   *time.Time
	}{
		{"last made at", r.MadeAt}, {"tombstone since", r.DeletedAt}, {"tombstone until", r.ExpiresAt}, {"lease until", r.LeasedUntil},
		{"second token cut after", r.QuietUntil}, {"its group has been terminating it since", r.LeavingSince}, {"its root volume is replaced, seen at", r.ReplacingSince},
		{"a token that could not be cut lives until", r.UncutUntil},
	} {
		if t.at != nil {
			p.line("%s %s", t.what, stamp(t.at))
		}
	}
	if r.Quarantine != nil {
		p.line("%s", quarantineLine(r.Quarantine))
	}
	if r.Revoking > 0 {
		p.line("its certificates are not all revoked: lease prefixes left to revoke: %d", r.Revoking)
	}
	if r.LastError != "" {
		p.line("error after %s: %s", count(r.Attempts, "attempt"), r.LastError)
	}
	for _, n := range r.Released {
		p.line("held %s below %s until %s", n.Name, n.Under, stamp(&n.At))
	}
}

// login prints what Vault knows of the instance's logins.
func (p *page) login(e reconcile.Explanation) {
	p.section("login")
	l := e.Login
	switch l.LoggedIn {
	case reconcile.Unknown:
		p.line("unknown")
	case reconcile.No:
		p.line("Vault knows of none")
	default:
		p.line("first %s, last %s, entity %s", stamp(l.First), stamp(l.Last), orDash(l.EntityID))
	}
}

// objects prints the objects in Vault.
func (p *page) objects(all []reconcile.SeenObject) {
	if len(all) == 0 {
		return
	}
	rows := [][]string{{"OBJECT", "GRANTED", "RECORDED", "IN VAULT", "PATH"}}
	for _, o := range all {
		recorded := yesNo(o.Recorded)
		if o.Retained {
			recorded = "retained"
		}
		rows = append(rows, []string{string(o.Object), yesNo(o.Granted), recorded, string(o.InVault), o.Path})
	}
	p.WriteString("\n")
	columns(&p.Builder, rows)
}

// names prints the claims, and the instances that wait for them.
func (p *page) names(e reconcile.Explanation) {
	if len(e.Names) > 0 {
		rows := [][]string{{"NAME", "GRANTED", "HELD BY", "UNTIL", "BELOW"}}
		for _, n := range e.Names {
			holder := orDash(n.HeldBy)
			if n.HeldBy == e.InstanceID {
				holder = "this instance"
			}
			rows = append(rows, []string{n.Name, yesNo(n.Granted), holder, stamp(n.Until), n.Under})
		}
		p.WriteString("\n")
		columns(&p.Builder, rows)
	}
	if len(e.Waiting) > 0 {
		fmt.Fprintf(p, "\nwaiting for a name of this instance, or waited: %s\n", text.Printable(strings.Join(e.Waiting, ", ")))
	}
}

// drift prints the differences.
func (p *page) drift(e reconcile.Explanation) {
	p.WriteString("\n")
	switch {
	case len(e.Drift) > 0:
		table(&p.Builder, e.Drift)
	case e.Compared:
		p.WriteString("no drift\n")
	default:
		p.WriteString("not compared with Vault and the ledger\n")
	}
}

// stamp returns a time as it is printed; a dash for none.
func stamp(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
