// Package instance_test generates the user data of each kind of instance from the files of this folder, and checks those
// files.
package instance_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/base64"
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
		"usr/local/lib/vault-agent/identity", service,
		"etc/systemd/system/vault-agent-resume.service", "etc/systemd/system/vault-agent-resume.timer",
	}
	if users := usersFile(role); users != "" {
		list = append(list, users)
	}
	for _, m := range source.FindAllStringSubmatch(read(t, roleFile), -1) {
		list = append(list, m[1])
	}
	return list
}

// usersFile returns the file with the users that a kind of instance needs; empty if its files belong to root.
func usersFile(role string) string {
	path := "etc/sysusers.d/vault-agent-" + role + ".conf"
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
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
	b.WriteString("runcmd:\n")
	if users := usersFile(role); users != "" {
		fmt.Fprintf(&b, "  - [systemd-sysusers, /%s]\n", users)
	}
	b.WriteString("  - [systemctl, daemon-reload]\n  - [systemctl, enable, --now, vault-agent.service, vault-agent-resume.timer]\n")
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

// largeCA is the size of a root certificate with a key of 4,096 bits, as PEM with the user data's indentation.
const largeCA = 2168

// The README promises room for these bundles. A certificate hardly shrinks, so random base64 stands in for it.
func TestUserData_HasRoomForCABundles(t *testing.T) {
	certificate := make([]byte, largeCA*3/4)
	for _, role := range roles {
		text := userData(t, role)
		if size := len(text) + largeCA; size > maxUserData {
			t.Errorf("%s.yaml has %d bytes with one large CA as text, EC2 takes %d", role, size, maxUserData)
		}
		bundle := ""
		for range 3 {
			if _, err := rand.Read(certificate); err != nil {
				t.Fatal(err)
			}
			bundle += base64.StdEncoding.EncodeToString(certificate)
		}
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text + bundle)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if packed.Len() > maxUserData {
			t.Errorf("%s.yaml has %d bytes compressed with three large CAs, EC2 takes %d", role, packed.Len(), maxUserData)
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

// The owner of each file must exist before Agent writes it.
func TestUserData_MakesTheUsersItNames(t *testing.T) {
	need(t, "systemd-sysusers")
	owner := regexp.MustCompile(`(?m)^  (user|group) += "([^"]+)"`)
	for _, role := range roles {
		image := t.TempDir()
		if users := usersFile(role); users != "" {
			if err := os.MkdirAll(filepath.Join(image, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			config, err := filepath.Abs(users)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "systemd-sysusers", "--root="+image, config).CombinedOutput(); err != nil {
				t.Fatalf("systemd-sysusers: %v: %s", err, out)
			}
		}
		for _, m := range owner.FindAllStringSubmatch(read(t, "etc/vault-agent/"+role+".hcl"), -1) {
			table := map[string]string{"user": "passwd", "group": "group"}[m[1]]
			entries, _ := os.ReadFile(filepath.Join(image, "etc", table))
			if !strings.Contains("\n"+string(entries), "\n"+m[2]+":") {
				t.Errorf("%s.hcl gives files to the %s %s, which a stock image does not have: name it in etc/sysusers.d/vault-agent-%[1]s.conf", role, m[1], m[2])
			}
		}
	}
}

func TestIdentity_PassesShellcheck(t *testing.T) {
	need(t, "shellcheck")
	if out, err := exec.CommandContext(t.Context(), "shellcheck", "usr/local/lib/vault-agent/identity").CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}
