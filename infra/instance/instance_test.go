// Package instance_test generates the user data of each kind of instance from the files of this folder, and checks those
// files.
package instance_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the user data instead of comparing")

var roles = []string{"worker", "master", "etcd"}

// maxUserData is EC2's limit in bytes, https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html
const maxUserData = 16 << 10

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var source = regexp.MustCompile(`"/(etc/vault-agent/templates/[^"]+)"`)

// files returns the files that a kind of instance needs, as paths from the root.
func files(t *testing.T, role string) []string {
	t.Helper()
	roleFile := "etc/vault-agent/" + role + ".hcl"
	list := []string{
		"etc/vault-agent/vault.env", "etc/vault-agent/agent.hcl", roleFile,
		"usr/local/lib/vault-agent/identity", "etc/systemd/system/vault-agent.service",
	}
	for _, m := range source.FindAllStringSubmatch(read(t, roleFile), -1) {
		list = append(list, m[1])
	}
	return list
}

func userData(t *testing.T, role string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "#cloud-config\n# User data for role %s, made by make golden from the files of infra/instance. The image must have Vault and curl.\n"+
		"# Set VAULT_ADDR, and the CA that signed Vault's certificate.\nwrite_files:\n", role)
	add := func(path, mode, text string) {
		fmt.Fprintf(&b, "  - path: /%s\n    permissions: %q\n    content: |\n", path, mode)
		for line := range strings.Lines(text) {
			if line != "\n" {
				b.WriteString("      ")
			}
			b.WriteString(line)
		}
	}
	add("etc/vault-agent/vault-ca.pem", "0644", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
	for _, file := range files(t, role) {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		mode := "0644"
		if info.Mode()&0o100 != 0 {
			mode = "0755"
		}
		add(file, mode, strings.Replace(read(t, file), "VAULT_ROLE_FILE=worker", "VAULT_ROLE_FILE="+role, 1))
	}
	b.WriteString("runcmd:\n  - [systemctl, daemon-reload]\n  - [systemctl, enable, --now, vault-agent.service]\n")
	return b.String()
}

func TestUserData_HoldsTheFilesAndFitsEC2(t *testing.T) {
	for _, role := range roles {
		got, path := userData(t, role), filepath.Join("user-data", role+".yaml")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if read(t, path) != got {
			t.Errorf("%s differs from the files of this folder: run make golden", path)
		}
		if len(got) > maxUserData {
			t.Errorf("%s has %d bytes, EC2 takes %d", path, len(got), maxUserData)
		}
		var parsed struct {
			Files []struct{ Path, Permissions, Content string } `yaml:"write_files"`
		}
		if err := yaml.Unmarshal([]byte(got), &parsed); err != nil || len(parsed.Files) != len(files(t, role))+1 {
			t.Fatalf("%s: %d files, %v", path, len(parsed.Files), err)
		}
		for _, f := range parsed.Files[2:] {
			if want := read(t, strings.TrimPrefix(f.Path, "/")); f.Content != want {
				t.Errorf("%s: cloud-init would write another %s than the tested one", path, f.Path)
			}
		}
	}
}

func TestAgentTemplates_AreUsedAndKeepKeysPrivate(t *testing.T) {
	used := map[string]bool{}
	stanza := regexp.MustCompile(`(?s)template \{\n  source      = "/(etc/[^"]+)"\n  destination = "/etc/(?:kubernetes|etcd)/pki/[^"]+"\n  perms       = "(\d+)"`)
	for _, role := range roles {
		text := read(t, "etc/vault-agent/"+role+".hcl")
		found := stanza.FindAllStringSubmatch(text, -1)
		if len(found) != strings.Count(text, "template {") || len(found) == 0 {
			t.Errorf("%s.hcl: %d of its templates name source, destination below a folder the unit may write, and mode", role, len(found))
		}
		for _, m := range found {
			used[m[1]] = true
			if holdsKey := strings.Contains(read(t, m[1]), ".Key"); holdsKey && m[2] != "0600" {
				t.Errorf("%s.hcl writes a key from %s with mode %s, want 0600", role, m[1], m[2])
			}
		}
	}
	err := filepath.WalkDir("etc/vault-agent/templates", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !used[path] {
			t.Errorf("%s is used by no role file", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Without shellcheck or systemd-analyze, its check is skipped with a log line. Debian has shellcheck as a package.
func TestScriptAndUnit_PassTheirLinters(t *testing.T) {
	for _, command := range [][]string{
		{"shellcheck", "usr/local/lib/vault-agent/identity"},
		{"systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "etc/systemd/system/vault-agent.service"},
	} {
		if _, err := exec.LookPath(command[0]); err != nil {
			t.Logf("%s is not installed: not checked", command[0])
			continue
		}
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
		text := string(out)
		if command[0] == "systemd-analyze" {
			// The unit's commands exist only on an instance.
			text = regexp.MustCompile(`(?m)^.*(is not executable: No such file or directory|Failed to prepare filename).*\n`).ReplaceAllString(text, "")
			err = nil
		}
		if err != nil || strings.TrimSpace(text) != "" {
			t.Errorf("%s: %v\n%s", command, err, text)
		}
	}
}
