package main

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// besideFunctions are the folders of the repository whose files a package has too, at the same paths, with the endings of these files. So
// a page names one path for a checkout and for a release. The endings leave out the files of a developer: state and variables of
// Terraform, compressed user data, editors' copies.
var besideFunctions = []struct { //nolint:gochecknoglobals // never changes
	folder  string
	endings []string
}{
	{"docs", []string{".md", ".svg", ".png", ".json"}},
	{"infra/RUNBOOK.md", []string{".md"}},
	{"infra/instance", []string{".md", ".conf", ".ctmpl", ".env", ".hcl", ".service", ".timer", ".yaml", "/identity", "/host-certificate"}},
	{"infra/member-account/template.yaml", []string{".yaml"}},
	{"infra/terraform", []string{".tf"}},
	{"infra/vault/terraform", []string{".tf"}},
	{"templates", []string{"/profile.yaml", ".tmpl"}},
}

// beside returns the files of a package beside the template and the functions: the pages, the built-in profiles, the files for instances,
// the member template and Terraform's modules.
func (r *release) beside() ([]entry, error) {
	source := os.DirFS(r.source)
	names, err := fs.Glob(source, "*.md")
	if err != nil {
		return nil, err
	}
	names = append(names, "LICENSE")
	for _, b := range besideFunctions {
		err := fs.WalkDir(source, b.folder, func(name string, d fs.DirEntry, err error) error {
			isHidden := strings.HasPrefix(path.Base(name), ".")
			switch {
			case err != nil:
				return err
			case d.IsDir() && isHidden:
				return fs.SkipDir
			case !isHidden && d.Type().IsRegular() && slices.ContainsFunc(b.endings, func(e string) bool { return strings.HasSuffix(name, e) }):
				names = append(names, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var entries []entry
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(r.source, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name, content, bytes.HasPrefix(content, []byte("#!"))})
	}
	return entries, nil
}
