// Package report prints the results of the benchmarks as tables in Markdown.
package report

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// Row is one row of a table. Bare and Ratio are empty if there is no bare figure to compare with.
type Row struct {
	What   string
	Bare   string // the least possible, measured in the same run
	Ours   string
	Ratio  string // ours to bare
	Target string
}

// Print writes a table under its heading.
func (t Table) Print(out io.Writer) {
	fmt.Fprintf(out, "\n### %s\n\n| | bare | ours | ratio | aim |\n| --- | --- | --- | --- | --- |\n", t.Heading)
	for _, r := range t.Rows {
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", r.What, r.Bare, r.Ours, r.Ratio, r.Target)
	}
}

// Quantile returns the value below which a share of the values lies, 0 if there are none.
func Quantile(all []time.Duration, share float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[min(len(all)-1, int(share*float64(len(all))))]
}

// Median returns the middle value, 0 if there is none.
func Median(all []time.Duration) time.Duration { return Quantile(all, 0.5) }

// Millis formats a duration in milliseconds.
func Millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// Seconds formats a duration in seconds.
func Seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// Rate formats the rate of n events in a duration, per second.
func Rate(n int, d time.Duration) string { return fmt.Sprintf("%.0f/s", float64(n)/d.Seconds()) }

// Times formats the ratio of two durations.
func Times(ours, bare time.Duration) string {
	return fmt.Sprintf("%.2f ×", float64(ours)/float64(bare))
}

// Thousands formats a number below a million with a comma before the last three digits.
func Thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
