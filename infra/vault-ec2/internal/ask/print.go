package ask

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// Limits of one printed difference.
const (
	diffLines = 40  // lines
	lineWidth = 240 // characters of a line
)

// printAnswer prints the fleet's drift: a row for each object with its difference below, then the summary.
func printAnswer(out io.Writer, a answer) error {
	var b strings.Builder
	s := a.Scanned
	fmt.Fprintf(&b, "%s%s: compared %s in EC2, %s, %s, %s and %s in %s\n", text.Printable(string(a.Mode)), inNamespace(a),
		count(s.Instances, "instance"), count(s.Records, "ledger record"), count(s.Policies, "policy"),
		count(s.AuthRoles, "auth role"), count(s.PKIRoles, "PKI role"), (time.Duration(a.DurationMs) * time.Millisecond).String())
	if len(a.Drift) > 0 {
		b.WriteString("\n")
		table(&b, a.Drift)
	}
	b.WriteString("\n")
	if said := summaryLine(a.Summary); said != "" {
		b.WriteString(said + "\n")
	} else if !a.Blocked { // a blocked comparison proves nothing
		b.WriteString("no drift\n")
	}
	if a.Truncated {
		fmt.Fprintf(&b, "only the first %s shown; the function's log has all\n", count(len(a.Drift), "row"))
	}
	if a.Summary.Enqueued > 0 {
		b.WriteString("rows sent to the queue are repaired from there: run --mode detect when the queue is empty\n")
	}
	quarantined(&b, a.Quarantined)
	places(&b, a.Places)
	if a.Blocked {
		indented(&b, "BLOCKED: ", a.BlockedReason)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// quarantined prints the instances in quarantine.
func quarantined(b *strings.Builder, all []reconcile.Quarantined) {
	for _, q := range all {
		indented(b, q.InstanceID+": ", quarantineLine(&q.SeenQuarantine))
	}
}

// places prints the places and folders that could not be looked at.
func places(b *strings.Builder, all []reconcile.PlaceTrouble) {
	for _, t := range all {
		effect := "nothing is withheld because of it"
		if t.Withholds {
			effect = "removals there are withheld"
		}
		fmt.Fprintf(b, "not compared: %s, with %s; %s\n", text.Printable(whereOf(t)), count(t.Recorded, "recorded instance"), effect)
		indented(b, "    error: ", t.Error)
	}
}

// whereOf returns the name of a place that could not be looked at.
func whereOf(t reconcile.PlaceTrouble) string {
	if t.Folder != "" {
		return "folder " + t.Folder + " of Vault"
	}
	return facts.Place{Account: t.Account, Region: t.Region}.Name()
}

// inNamespace returns Vault's namespace as an answer's first line names it; empty for the root one.
func inNamespace(a answer) string {
	if a.Namespace == "" {
		return ""
	}
	return " in Vault's namespace " + text.Printable(a.Namespace)
}

// table prints the rows of drift, each with its difference below. The path may be long and comes last.
func table(b *strings.Builder, rows []reconcile.Drift) {
	cells := [][]string{{"INSTANCE", "OBJECT", "REASON", "ACTION", "PATH"}}
	for _, d := range rows {
		cells = append(cells, []string{orDash(d.InstanceID), string(d.Object), string(d.Reason), string(d.Action), orDash(d.Path)})
	}
	for n, line := range aligned(cells) {
		b.WriteString(line + "\n")
		if n > 0 {
			details(b, rows[n-1])
		}
	}
}

// details prints the differences of one object, indented below its row.
func details(b *strings.Builder, d reconcile.Drift) {
	if len(d.Fields) > 0 {
		fmt.Fprintf(b, "    fields: %s\n", text.Printable(strings.Join(d.Fields, ", ")))
	}
	if diff := strings.Trim(d.Diff, "\n"); diff != "" {
		lines := strings.Split(diff, "\n")
		for _, line := range lines[:min(len(lines), diffLines)] {
			fmt.Fprintf(b, "    %s\n", text.Clip(text.Printable(line), lineWidth))
		}
		if more := len(lines) - diffLines; more > 0 {
			fmt.Fprintf(b, "    … and %s more; --output json has all\n", count(more, "line"))
		}
	}
	if d.Error != "" {
		indented(b, "    error: ", d.Error)
	}
}

// indented prints a text after its label and aligns the text's further lines: one text may hold several faults, and none
// of its lines must look like a row of the table.
func indented(b *strings.Builder, label, s string) {
	for line := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		b.WriteString(label + text.Printable(line) + "\n")
		label = strings.Repeat(" ", len(label))
	}
}

// summaryLine returns the counts of drift and repairs as one line; empty if there are none.
func summaryLine(s reconcile.Summary) string {
	found := counted(
		part{s.Missing, "missing"}, part{s.Changed, "changed"}, part{s.Orphaned, "orphaned"}, part{s.Conflicting, "conflicting"})
	became := counted(part{s.Corrected, "corrected"}, part{s.Failed, "failed"}, part{s.Enqueued, "sent to the queue"})
	switch {
	case found == "":
		return became
	case became == "":
		return "drift: " + found
	}
	return "drift: " + found + "; " + became
}

type part struct {
	n    int
	what string
}

// counted lists the parts that are not zero.
func counted(parts ...part) string {
	var said []string
	for _, p := range parts {
		if p.n > 0 {
			said = append(said, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(said, ", ")
}

// printReport prints doctor's checks, and the remedy of a failed one on a line of its own.
func printReport(out io.Writer, r doctor.Report) error {
	var b strings.Builder
	width, bad := 0, 0
	for _, c := range r.Checks {
		width = max(width, utf8.RuneCountInString(text.Printable(c.Name)))
	}
	for _, c := range r.Checks {
		verdict := "ok"
		if !c.OK {
			verdict = "NOT OK"
			bad++
		}
		fmt.Fprintf(&b, "%-6s  %-*s  %s\n", verdict, width, text.Printable(c.Name), text.Printable(c.Detail))
		if c.Remedy != "" && !c.OK {
			fmt.Fprintf(&b, "        remedy: %s\n", text.Printable(c.Remedy))
		}
	}
	switch {
	case bad > 0:
		fmt.Fprintf(&b, "\n%d of %s not ok\n", bad, count(len(r.Checks), "check"))
	case !r.OK:
		b.WriteString("\nno check failed, but the function reports a fault; see its log\n")
	default:
		fmt.Fprintf(&b, "\n%s, all ok\n", count(len(r.Checks), "check"))
	}
	if r.Version != "" { // a function of an earlier version does not return it
		fmt.Fprintf(&b, "the function's version: %s\n", text.Printable(r.Version))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func count(n int, what string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(what, "y"):
		what = strings.TrimSuffix(what, "y") + "ies"
	default:
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
