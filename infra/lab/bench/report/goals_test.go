package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGoal_IsMetByThePrintedFigure(t *testing.T) {
	for _, c := range []struct {
		goal Goal
		met  bool
		text string
	}{
		{Goal{Value: 1.3, Aim: 1.3, Unit: "×"}, true, "met"},
		{Goal{Value: 1.304, Aim: 1.3, Unit: "×"}, true, "met"},
		{Goal{Value: 1.31, Aim: 1.3, Unit: "×"}, false, "**missed** by 0.01 ×"},
		{Goal{Value: 0.9, Aim: 0.9, AtLeast: true, Unit: "×"}, true, "met"},
		{Goal{Value: 0.85, Aim: 0.9, AtLeast: true, Unit: "×"}, false, "**missed** by 0.05 ×"},
		{Goal{Value: 300, Aim: 256, Unit: "MB"}, false, "**missed** by 44 MB"},
	} {
		if got := c.goal.Met(); got != c.met {
			t.Errorf("%+v is met: %v, want %v", c.goal, got, c.met)
		}
		if got := c.goal.distance(); got != c.text {
			t.Errorf("%+v: the table says %q, want %q", c.goal, got, c.text)
		}
	}
}

// A line without its figure would look like an aim that is met with 0.
func TestGoals_LeaveOutWhatWasNotMeasured(t *testing.T) {
	if got := (Results{}).Goals(); len(got) != 0 {
		t.Errorf("results without a figure have the lines %+v, want none", got)
	}
	one := Results{Fleets: []Fleet{{Instances: 1000, Raw: 1, Ours: 2, Ratio: 2}}}
	if got := one.Goals(); len(got) != 0 {
		t.Errorf("a fleet too small for an aim has the lines %+v, want none", got)
	}
}

func TestGoals_CompareTheGrowthWithTheRawReads(t *testing.T) {
	r := Results{Fleets: []Fleet{
		{Instances: 10_000, Raw: 10, Ours: 11, Ratio: 1.1},
		{Instances: 100_000, Raw: 150, Ours: 165, Ratio: 1.1, Items: 500_000, ItemsRead: 500_000, PeakMB: 200},
	}}
	got := map[string]float64{}
	for _, g := range r.Goals() {
		got[g.What] = g.Value
		if !g.Met() {
			t.Errorf("%s: %v is not met", g.What, g.Value)
		}
	}
	want := "growth of the cost of an instance from 10,000 to 100,000, beside the raw reads' own"
	if got[want] != 1 || len(got) != 5 {
		t.Errorf("the lines are %v, want five and a growth of 1: both sides take 1.5 times for each instance", got)
	}
}

func TestReplace_ChangesOnlyTheMarkedPart(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	const before, after = "# Page\n\n" + beginMark + "\n\n", "\n\n" + endMark + "\n\nEnd\n"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(before + "old" + after)
	for range 2 { // the second run finds the first one's text
		if err := Replace(page, []byte("\nnew\n")); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if want := before + "new" + after; string(got) != want {
			t.Errorf("the page is %q, want %q", got, want)
		}
	}
	for _, text := range []string{"no marks", before, endMark + beginMark, before + after + before} {
		write(text)
		if err := Replace(page, nil); err == nil || !strings.Contains(err.Error(), page) {
			t.Errorf("a page with %q: %v, want an error that names the page", text, err)
		}
	}
}
