package stack

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPackage_HoldsAllThatTheTemplateNames(t *testing.T) {
	dir := t.TempDir()
	run(t, nil, "package", "BUILD_DIR="+dir)
	release := filepath.Join(dir, "release")
	sums, err := os.ReadFile(filepath.Join(release, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}

	const bundle = "vault-ec2-provisioner-arm64.zip"
	all := unzip(t, filepath.Join(release, bundle))
	template, err := os.ReadFile(filepath.Join(root, "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(all["template.yaml"], template) {
		t.Errorf("%s holds another template than template.yaml, or none", bundle)
	}
	zips := []string{bundle}
	for id, r := range object(unexpanded(t)["Resources"]) {
		if object(r)["Type"] != "AWS::Serverless::Function" {
			continue
		}
		uri, _ := object(object(r)["Properties"])["CodeUri"].(string)
		binary := all[uri+"bootstrap"]
		if len(binary) == 0 {
			t.Errorf("%s: CodeUri names %s, and %s holds no %sbootstrap: sam deploy would fail", id, uri, bundle, uri)
		}
		name := filepath.Base(uri) + "-arm64.zip"
		zips = append(zips, name)
		if alone := unzip(t, filepath.Join(release, name)); len(alone) != 1 || !bytes.Equal(alone["bootstrap"], binary) {
			t.Errorf("%s: want the bootstrap of %s and nothing else, seen %d files", name, bundle, len(alone))
		}
	}
	if lines := strings.Count(string(sums), "\n"); lines != len(zips) {
		t.Errorf("SHA256SUMS has %d lines, want %d", lines, len(zips))
	}
	for _, name := range zips {
		content, err := os.ReadFile(filepath.Join(release, name))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		if want := hex.EncodeToString(sum[:]) + "  " + name; !strings.Contains(string(sums), want) {
			t.Errorf("SHA256SUMS lacks the line %q:\n%s", want, sums)
		}
	}
}

// unzip returns the files of a zip by name, and fails where Lambda could not run a bootstrap.
func unzip(t *testing.T, file string) map[string][]byte {
	t.Helper()
	archive, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	files := map[string][]byte{}
	for _, f := range archive.File {
		if f.FileInfo().IsDir() {
			continue
		}
		if filepath.Base(f.Name) == "bootstrap" && f.Mode().Perm() != 0o755 {
			t.Errorf("%s: mode of %s is %v, want 0755", filepath.Base(file), f.Name, f.Mode())
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("reading %s in %s: %v", f.Name, file, err)
		}
		r.Close()
		files[f.Name] = content
	}
	return files
}
