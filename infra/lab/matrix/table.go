package matrix

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// table returns a Markdown table with a row for each class of attempts and a column for each server. A cell reads
// "attempts: refused + harmless".
func table(results []result) string {
	classes := map[string]bool{}
	for _, r := range results {
		for class := range r.classes {
			classes[class] = true
		}
	}
	var out strings.Builder
	line := func(what string, cell func(result) string) {
		out.WriteString("| " + what + " |")
		for _, r := range results {
			out.WriteString(" " + cell(r) + " |")
		}
		out.WriteString("\n")
	}
	line("attempts: refused + harmless", func(r result) string { return r.server })
	line("---", func(result) string { return "---" })
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		line(class, func(r result) string { return cell(r.classes[class]) })
	}
	line("all attempts", func(r result) string {
		var sum count
		for _, n := range r.classes {
			sum.attempts, sum.refused, sum.harmless = sum.attempts+n.attempts, sum.refused+n.refused, sum.harmless+n.harmless
		}
		return cell(sum)
	})
	line("uses that must work", func(r result) string { return fmt.Sprintf("%d of %d", r.worked, r.uses) })
	line("tests", func(r result) string { return fmt.Sprint(r.tests) })
	line("failures", func(r result) string { return fmt.Sprint(len(r.failed)) })
	return out.String()
}

// cell returns a count as text. Attempts that are neither refused nor harmless got through.
func cell(n count) string {
	if n.attempts == 0 {
		return "–"
	}
	text := fmt.Sprintf("%d: %d + %d", n.attempts, n.refused, n.harmless)
	if through := n.attempts - n.refused - n.harmless; through > 0 {
		text += fmt.Sprintf(", %d GOT THROUGH", through)
	}
	return text
}
