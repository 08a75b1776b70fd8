// Package lint checks a folder of profiles and reports every fault of every profile. It needs neither AWS nor Vault.
package lint

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The exit statuses.
const (
	clean  = 0 // all profiles pass
	faulty = 1 // a profile has a fault, or there is none
	broken = 2 // the command failed
)

// Options say what is checked.
type Options struct {
	Folder string
	Rules  grant.Rules
	JSON   bool // print the findings as a list of objects
}

// Run checks the profiles, prints the findings and returns the exit status: 0 if there is none, 1 if there are some, 2 with an error if the
// command itself failed.
func Run(o Options, out io.Writer) (int, error) {
	if _, err := os.ReadDir(o.Folder); err != nil {
		return broken, fmt.Errorf("reading the folder of the profiles (vault-ec2 lint <folder> names yours): %w", err)
	}
	files := os.DirFS(o.Folder)
	n, faults, err := grant.Check(files, o.Rules)
	if err != nil {
		faults = []grant.Fault{{Err: fmt.Errorf("%s: %w", o.Folder, err)}}
	}
	findings := findingsOf(faults, o.Folder, func(dir string) []string { return namesIn(files, dir) })
	show := showText
	if o.JSON {
		show = showJSON
	}
	if err := show(out, o.Folder, n, findings); err != nil {
		return broken, fmt.Errorf("printing the findings: %w", err)
	}
	if len(findings) > 0 {
		return faulty, nil
	}
	return clean, nil
}

// namesIn returns the names of the files in a folder; none if it cannot be read: a finding then names the profile's file.
func namesIn(files fs.FS, dir string) []string {
	entries, _ := fs.ReadDir(files, dir)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

func showJSON(out io.Writer, _ string, _ int, findings []Finding) error {
	list, err := json.MarshalIndent(findings, "", "  ")
	if err != nil {
		return err
	}
	return text.PrintJSON(out, list)
}

// showText prints a line for each finding as compilers do, file:line: message, so that editors and pipelines recognise it.
func showText(out io.Writer, folder string, profiles int, findings []Finding) error {
	var b strings.Builder
	for _, f := range findings {
		if f.File != "" {
			b.WriteString(text.Printable(f.File) + ":")
			if f.Line > 0 {
				fmt.Fprintf(&b, "%d:", f.Line)
			}
			b.WriteString(" ")
		}
		b.WriteString(text.Lines(f.Message) + "\n")
	}
	if len(findings) > 0 {
		fmt.Fprintf(&b, "\nfaults: %d, profiles checked in %s: %d\n", len(findings), folder, profiles)
	} else {
		fmt.Fprintf(&b, "all %d profiles in %s pass\n", profiles, folder)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
