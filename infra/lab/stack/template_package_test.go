package stack

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/released"
)

// release makes the files of a release in a checkout and returns their folder.
func release(t *testing.T, checkout string) string {
	t.Helper()
	dir, output, err := released.Make(t.Context(), checkout, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", output)
	return dir
}

// copyOf returns a copy of the repository at another path, without git.
func copyOf(t *testing.T) string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	to := filepath.Join(t.TempDir(), "another", "path")
	for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted and not committed
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o750)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestRelease_IsWholeAndReproducible(t *testing.T) {
	dir := release(t, root)
	t.Run("sums", func(t *testing.T) { hasSums(t, dir) })
	t.Run("packages", func(t *testing.T) { holdsAllThatTheTemplateNames(t, dir) })
	t.Run("command", func(t *testing.T) { hasTheVersion(t, dir) })
	t.Run("statements", func(t *testing.T) { describesItsFiles(t, dir) })
	t.Run("another path", func(t *testing.T) {
		again := release(t, copyOf(t))
		want, got := read(t, dir, "SHA256SUMS"), read(t, again, "SHA256SUMS")
		if !bytes.Equal(want, got) {
			t.Errorf("the same sources at another path give other bytes, so that a release cannot be checked:\n%s\n%s", want, got)
		}
	})
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func hasSums(t *testing.T, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	sums := string(read(t, dir, "SHA256SUMS"))
	if lines := strings.Count(sums, "\n"); lines != len(entries)-1 {
		t.Errorf("SHA256SUMS has %d lines, want one for each of the %d other files", lines, len(entries)-1)
	}
	for _, e := range entries {
		if want := digest(read(t, dir, e.Name())) + "  " + e.Name() + "\n"; e.Name() != "SHA256SUMS" && !strings.Contains(sums, want) {
			t.Errorf("SHA256SUMS lacks the line %q:\n%s", want, sums)
		}
	}
}

func holdsAllThatTheTemplateNames(t *testing.T, dir string) {
	// docs/decisions/binary-size.md: the aim, and the functions that are above it.
	limits := map[string]float64{"provision": 15, "deprovision": 15, "reconcile": 16}
	for _, processor := range []string{"arm64", "x86_64"} {
		bundle := "vault-ec2-provisioner-" + processor + ".zip"
		all := unzip(t, filepath.Join(dir, bundle))
		for name, want := range map[string]string{
			"template.yaml": "SemanticVersion: " + released.Version + "\n", "LICENSE": "Apache License", "README.md": "vault-ec2-provisioner",
			"infra/member-account/template.yaml": "AWSTemplateFormatVersion", "templates/worker/profile.yaml": "name: alice_cluster-worker",
			"infra/instance/user-data/worker.yaml": "#cloud-config", "THIRD-PARTY-LICENSES": "==== github.com/hashicorp/vault/api ",
		} {
			if !bytes.Contains(all[name], []byte(want)) {
				t.Errorf("%s: want %q in %s", bundle, want, name)
			}
		}
		for name, content := range all {
			isMade := name == "template.yaml" || name == "THIRD-PARTY-LICENSES" || strings.HasPrefix(name, "build/")
			if !isMade && !bytes.Equal(content, read(t, root, name)) {
				t.Errorf("%s: %s differs from the repository's", bundle, name)
			}
		}
		functions := 0
		for id, r := range object(unexpanded(t)["Resources"]) {
			if object(r)["Type"] != "AWS::Serverless::Function" {
				continue
			}
			functions++
			uri, _ := object(object(r)["Properties"])["CodeUri"].(string)
			binary := all[uri+"bootstrap"]
			if len(binary) == 0 {
				t.Errorf("%s: CodeUri names %s, and %s holds no %sbootstrap: sam deploy would fail", id, uri, bundle, uri)
			}
			name := filepath.Base(uri)
			if alone := unzip(t, filepath.Join(dir, name+"-"+processor+".zip")); len(alone) != 1 || !bytes.Equal(alone["bootstrap"], binary) {
				t.Errorf("%s: want the bootstrap of %s alone in its zip, seen %d files", name, bundle, len(alone))
			}
			if size := float64(len(binary)) / (1 << 20); processor == "arm64" && size > limits[name] {
				t.Errorf("%s has %.2f MiB, want at most %.1f: docs/decisions/binary-size.md says what makes it grow", name, size, limits[name])
			}
		}
		if n := countOf(all, "build/"); n != functions {
			t.Errorf("%s holds %d files below build, want the bootstrap of %d functions alone", bundle, n, functions)
		}
	}
}

// countOf returns the number of files below a folder.
func countOf(all map[string][]byte, folder string) int {
	n := 0
	for name := range all {
		if strings.HasPrefix(name, folder) {
			n++
		}
	}
	return n
}

func hasTheVersion(t *testing.T, dir string) {
	to := t.TempDir()
	archive := filepath.Join(dir, "vault-ec2-"+runtime.GOOS+"-"+runtime.GOARCH+".tar.gz")
	if out, err := exec.CommandContext(t.Context(), "tar", "-xzf", archive, "-C", to).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(to, "vault-ec2"), "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "vault-ec2 v"+released.Version+" ") {
		t.Errorf("want the command to say that it is v%s, got %q, %v", released.Version, out, err)
	}
	if len(read(t, to, "LICENSE")) == 0 || len(read(t, to, "THIRD-PARTY-LICENSES")) == 0 {
		t.Error("want the licences beside the command")
	}
}

func describesItsFiles(t *testing.T, dir string) {
	var statement struct {
		Type          string `json:"_type"`
		PredicateType string
		Subject       []struct {
			Name   string
			Digest struct{ SHA256 string }
		}
	}
	if err := json.Unmarshal(read(t, dir, "provenance.json"), &statement); err != nil {
		t.Fatal(err)
	}
	if statement.Type != "https://in-toto.io/Statement/v1" || statement.PredicateType != "https://slsa.dev/provenance/v1" || len(statement.Subject) < 11 {
		t.Errorf("want a statement of SLSA about all files, got %+v", statement)
	}
	for _, s := range statement.Subject {
		if got := digest(read(t, dir, s.Name)); got != s.Digest.SHA256 {
			t.Errorf("provenance.json: %s has the digest %s, want %s", s.Name, s.Digest.SHA256, got)
		}
	}
	var bom struct {
		BOMFormat    string
		Components   []struct{ Name, Purl string }
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
	}
	if err := json.Unmarshal(read(t, dir, "sbom.cdx.json"), &bom); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, c := range bom.Components {
		known[c.Purl] = true
	}
	if bom.BOMFormat != "CycloneDX" || len(bom.Dependencies) != 7 { // six functions and a command
		t.Errorf("want seven programs with their modules, got %+v", bom)
	}
	for _, d := range bom.Dependencies {
		for _, purl := range d.DependsOn {
			if !known[purl] {
				t.Errorf("%s needs %s, which is no component", d.Ref, purl)
			}
		}
		isCommand, hasCobra := strings.HasPrefix(d.Ref, "vault-ec2 "), strings.Contains(strings.Join(d.DependsOn, " "), "github.com/spf13/cobra@")
		if isCommand != hasCobra {
			t.Errorf("%s: want cobra in the command alone, got %q", d.Ref, d.DependsOn)
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
