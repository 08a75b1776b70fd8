package main

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	pageLink = regexp.MustCompile(`\]\(([^)\s#]+)[^)\s]*\)`)
	// A file or folder that a page names outside of a link, such as infra/instance/user-data/worker.yaml.
	pagePath = regexp.MustCompile("(?:[\\s`(]|\\.\\./|^)((?:infra/(?:instance|member-account|terraform|vault)|templates)(?:/[\\w.-]+)*)")
)

// A reader of a release has no checkout: what its pages name must be beside them.
func TestPackage_HasWhatItsPagesName(t *testing.T) {
	r := release{options: options{source: "../.."}}
	entries, err := r.beside()
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, e := range entries {
		if has[e.name] {
			t.Errorf("want each file once, got %s twice", e.name)
		}
		for name := e.name; name != "."; name = path.Dir(name) { // folders too
			has[name] = true
		}
	}
	named := 0
	for _, e := range entries {
		if path.Ext(e.name) != ".md" {
			continue
		}
		for _, l := range pageLink.FindAllSubmatch(e.content, -1) {
			to := string(l[1])
			if target := path.Join(path.Dir(e.name), to); !strings.Contains(to, "://") && path.Ext(to) != ".go" {
				if named++; !has[target] {
					t.Errorf("%s links to %s, which the package does not hold", e.name, target)
				}
			}
		}
		if isForUsers := !strings.HasPrefix(e.name, "docs/decisions/") && e.name != "CONTRIBUTING.md"; !isForUsers {
			continue
		}
		for _, p := range pagePath.FindAllSubmatch(e.content, -1) {
			if target := strings.TrimRight(string(p[1]), "."); path.Ext(target) != ".go" {
				if named++; !has[target] {
					t.Errorf("%s names %s, which the package does not hold", e.name, target)
				}
			}
		}
	}
	if named < 100 {
		t.Errorf("read only %d names in the pages: this test reads them wrongly", named)
	}
}

// A release is made in a checkout, in which its maker may have tried the modules and the user data.
func TestPackage_LeavesOutFilesOfItsMaker(t *testing.T) {
	source := t.TempDir()
	wanted := []string{"README.md", "LICENSE", "docs/a.md", "infra/RUNBOOK.md", "infra/instance/user-data/worker.yaml", "infra/member-account/template.yaml",
		"infra/terraform/stack/main.tf", "infra/vault/terraform/main.tf", "templates/worker/profile.yaml"}
	others := []string{"accounts.txt", "infra/instance/worker.yaml.gz", "infra/instance/a_test.go", "infra/terraform/stack/terraform.tfstate",
		"infra/terraform/stack/prod.auto.tfvars", "infra/terraform/stack/.terraform/modules/main.tf", "infra/vault/terraform/.override.tf",
		"templates/testdata/worker.golden", "templates/worker/profile.yaml.orig"}
	for _, name := range append(wanted, others...) {
		file := filepath.Join(source, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := release{options: options{source: source}}
	entries, err := r.beside()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.name)
	}
	if want := strings.Join(wanted, " "); strings.Join(got, " ") != want {
		t.Errorf("want the files\n%s\ngot\n%s", want, strings.Join(got, " "))
	}
}
