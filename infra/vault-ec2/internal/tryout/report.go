package tryout

import (
	"fmt"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

// reportData is what the report shows.
type reportData struct {
	Name, Version, Vault string
	Places               []string
	Began                time.Time
	Took                 time.Duration
	Met, Missed, Skipped int
	Parts                []reportPart
	Race                 []raceRow
	Attacks              []attackRow
}

type reportPart struct {
	Name  string
	Lines []line
}

// report returns the report in Markdown.
func (t *tryout) report() string { return render(t.reportData()) }

func (t *tryout) reportData() reportData {
	d := reportData{
		Name: t.o.Name, Version: version.Version(), Vault: t.o.VaultVersion, Began: t.began.UTC(), Took: time.Since(t.began).Round(time.Second),
		Met: t.j.count(met), Missed: t.j.count(missed), Skipped: t.j.count(notTried), Race: race(t.hosts), Attacks: attackRows(t.hosts),
	}
	for _, p := range t.places {
		d.Places = append(d.Places, p.String())
	}
	for _, l := range t.j.lines {
		if n := len(d.Parts); n == 0 || d.Parts[n-1].Name != l.Part {
			d.Parts = append(d.Parts, reportPart{Name: l.Part})
		}
		last := &d.Parts[len(d.Parts)-1]
		last.Lines = append(last.Lines, l)
	}
	return d
}

// render returns the report of d. text/template would keep every method of AWS's clients in the program (docs/decisions/binary-size.md).
func render(d reportData) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Tryout %s\n\n%d expectations met, %d missed, %d not tried. It began on %s UTC and took %s.\n\n",
		d.Name, d.Met, d.Missed, d.Skipped, d.Began.Format(time.DateTime), d.Took)
	facts := [][]any{{"version", d.Version}, {"Vault", d.Vault}}
	for _, p := range d.Places {
		facts = append(facts, []any{"place", p})
	}
	table(&b, []string{"", ""}, facts)
	for _, p := range d.Parts {
		fmt.Fprintf(&b, "## %s\n\n", p.Name)
		var rows [][]any
		for _, l := range p.Lines {
			rows = append(rows, []any{l.Mark, l.Expected, l.Seen, secondsOrNothing(l.Took)})
		}
		table(&b, []string{"", "expected", "seen", "time"}, rows)
	}
	b.WriteString("## The race for the first login\n\nAn instance tries to log in once a second from its first moment on. A try is refused until its grant is stored.\n\n")
	var rows [][]any
	for _, r := range d.Race {
		rows = append(rows, []any{r.ID, r.Kind, fmt.Sprintf("%.1f s", r.SinceLaunch), fmt.Sprintf("%.1f s", r.Waiting), r.Tries, r.Refusal})
	}
	table(&b, []string{"instance", "kind", "from the launch to the login", "from the first try to the login", "tries", "the last refusal before it"}, rows)
	b.WriteString("## Attacks one by one\n\nEach instance makes these requests with its own token, or without one.\n\n")
	rows = nil
	for _, r := range d.Attacks {
		rows = append(rows, []any{r.Name, r.Tried, r.Refused, r.Answer})
	}
	table(&b, []string{"attack", "instances", "refused", "an answer"}, rows)
	b.WriteString(reportEnd)
	return b.String()
}

const reportEnd = `## What stays

KMS deletes the key seven days after its removal, and DynamoDB keeps its system backup of the table for 35 days, both without cost. CloudTrail has
what happened. Everything else that the tryout made is removed if each line of the part Removal says ok.
`

// table writes a table of Markdown, with an empty line after it.
func table(b *strings.Builder, head []string, rows [][]any) {
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
	for _, r := range rows {
		for _, v := range r {
			fmt.Fprintf(b, "| %s ", cell(v))
		}
		b.WriteString("|\n")
	}
	b.WriteString("\n")
}

// cell returns a text as one cell of a Markdown table.
func cell(v any) string {
	s := strings.Join(strings.Fields(fmt.Sprint(v)), " ")
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;").Replace(s)
}

func secondsOrNothing(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return seconds(d)
}
