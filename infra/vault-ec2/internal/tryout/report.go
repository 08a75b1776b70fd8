package tryout

import (
	"fmt"
	"strings"
	"text/template"
	"time"

	_ "embed"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

//go:embed report.md.tmpl
var reportTemplate string

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

func render(d reportData) string {
	parsed := template.Must(template.New("report").Funcs(template.FuncMap{"cell": cell, "seconds": secondsOrNothing}).Parse(reportTemplate))
	var b strings.Builder
	if err := parsed.Execute(&b, d); err != nil {
		return fmt.Sprintf("the report could not be written: %v\n", err)
	}
	return b.String()
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
