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
	widths := make([]int, len(rows[0])-1)
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(text.Printable(row[i])))
		}
	}
	for _, row := range rows {
		for i, width := range widths {
			fmt.Fprintf(b, "%-*s  ", width, text.Printable(row[i]))
		}
		b.WriteString(text.Printable(row[len(widths)]) + "\n")
	}
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
