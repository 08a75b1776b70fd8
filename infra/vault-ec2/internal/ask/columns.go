package ask

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
)

// columns prints rows with each column as wide as its widest cell. The last column may be long. Cells come from others.
func columns(b *strings.Builder, rows [][]string) {
	for _, line := range aligned(rows) {
		b.WriteString(line + "\n")
	}
}

// aligned returns rows as lines in which each column is as wide as its widest cell.
func aligned(rows [][]string) []string {
	widths := make([]int, len(rows[0])-1)
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(text.Printable(row[i])))
		}
	}
	lines := make([]string, len(rows))
	for n, row := range rows {
		for i, width := range widths {
			lines[n] += fmt.Sprintf("%-*s  ", width, text.Printable(row[i]))
		}
		lines[n] += text.Printable(row[len(widths)])
	}
	return lines
}

// pairs returns a map as key=value, sorted.
func pairs(of map[string]string) []string {
	var out []string
	for key, value := range of {
		out = append(out, key+"="+value)
	}
	slices.Sort(out)
	return out
}
