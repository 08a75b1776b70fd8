package main

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTemplate_AdmitsOnlyItsProcessor(t *testing.T) {
	r := release{options: options{source: "../..", version: "1.2.3"}}
	content, err := r.template("x86_64")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"SemanticVersion: 1.2.3\n", "Value: v1.2.3}", "    Default: x86_64\n", "    AllowedValues: [x86_64]\n"} {
		if !strings.Contains(string(content), want) {
			t.Errorf("want %q in the template: the package has functions of this version for this processor alone", want)
		}
	}
	if strings.Contains(string(content), sourceVersion) {
		t.Errorf("the template still names %s", sourceVersion)
	}
}

// A reworded template must not be released with the version of the sources, or for another processor.
func TestTemplate_WithoutItsMarksIsRefused(t *testing.T) {
	whole, err := os.ReadFile("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{"SemanticVersion: " + sourceVersion, "    Default: arm64\n", "    AllowedValues: [arm64, x86_64]\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "template.yaml"), bytes.Replace(whole, []byte(mark), nil, 1), 0o600); err != nil {
			t.Fatal(err)
		}
		r := release{options: options{source: dir, version: "1.2.3"}}
		if _, err := r.template("arm64"); err == nil {
			t.Errorf("want a template without %q refused", mark)
		}
	}
}

func TestZip_HasOneTimeAndModesThatRun(t *testing.T) {
	at := time.Date(2026, 11, 26, 20, 0, 0, 0, time.UTC)
	content, err := zipped(at, entry{"bootstrap", []byte("x"), true}, entry{name: "template.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	for i, mode := range []os.FileMode{0o755, 0o644} {
		if f := z.File[i]; f.Mode() != mode || !f.Modified.Equal(at) {
			t.Errorf("%s: want mode %v at %v, got %v at %v", f.Name, mode, at, f.Mode(), f.Modified)
		}
	}
}

// A licence that is missing shows nowhere else, and most modules require theirs beside a binary.
func TestLicences_MissingOneIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "NOTICE"), []byte("a notice"), 0o600); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := addLicences(&text, "m v1", dir); err == nil || !strings.Contains(err.Error(), "m v1: no licence") {
		t.Errorf("want an error that names the module, got %v", err)
	}
}
