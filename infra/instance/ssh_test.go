package instance_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const hostCertificate = "ssh-host/usr/local/lib/vault-agent/host-certificate"

func TestHostCertificate_PassesShellcheck(t *testing.T) {
	need(t, "shellcheck")
	if out, err := exec.CommandContext(t.Context(), "shellcheck", hostCertificate).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

// Agent writes a new certificate every few minutes. sshd is to read one only when the one in use is due, or says something else.
func TestHostCertificate_IsTakenWhenDue(t *testing.T) {
	need(t, "ssh-keygen", "sed", "date")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
	}
	for _, key := range []string{"ca", "other-ca", "host", "other-host"} {
		run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at(key))
	}
	// sign writes a host certificate to new.
	sign := func(ca, key, principals, validity string) {
		t.Helper()
		run("ssh-keygen", "-q", "-s", at(ca), "-I", "i-0123456789abcdef0-sshd", "-h", "-n", principals, "-V", validity, at(key)+".pub")
		if err := os.Rename(at(key)+"-cert.pub", at("new")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("systemctl"), []byte("#!/bin/sh\necho \"$*\" >>'"+at("calls")+"'\n"), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	calls := 0
	take := func(what string, wantTaken bool) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "/bin/sh", hostCertificate, at("new"), at("used"), "ssh.service")
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", what, err, out)
		}
		if wantTaken {
			calls++
		}
		log, _ := os.ReadFile(at("calls"))
		if want := strings.Repeat("--no-block try-reload-or-restart ssh.service\n", calls); string(log) != want {
			t.Fatalf("%s: got the calls\n%swant\n%s", what, log, want)
		}
		if taken := read(t, at("used")) == read(t, at("new")); taken != wantTaken {
			t.Errorf("%s: the new certificate is taken into use: %v, want %v", what, taken, wantTaken)
		}
	}
	const names = "10.1.1.4,a.example"
	sign("ca", "host", names, "-1m:+24h")
	take("the first one", true)
	sign("ca", "host", names, "-1m:+25h")
	take("another of the same", false)
	sign("ca", "host", names+",b.example", "-1m:+24h")
	take("one with another principal", true)
	sign("other-ca", "host", names+",b.example", "-1m:+24h")
	take("one of another CA", true)
	sign("other-ca", "other-host", names+",b.example", "-1m:+24h")
	take("one of another key", true)
	sign("ca", "host", names, "-13h:+11h")
	take("one past half of its life, with other contents", true)
	sign("ca", "host", names, "-1m:+24h")
	take("the next, as half of the life of the one in use is over", true)
	if err := os.WriteFile(at("new"), []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "/bin/sh", hostCertificate, at("new"), at("used"), "ssh.service").CombinedOutput(); err == nil || read(t, at("used")) == "no certificate\n" {
		t.Errorf("want a file that is no certificate refused, got %v: %s", err, out)
	}
	if info, err := os.Stat(at("used")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("got the mode %v, %v, want 0644", fmt.Sprint(info.Mode()), err)
	}
}

// The drop-in replaces the unit's command, so it must have all of it.
func TestHostCertificate_UnitHasItsFile(t *testing.T) {
	const start = "ExecStart=/usr/bin/vault agent "
	line := func(text string) string {
		i := strings.LastIndex(text, start)
		rest, _, _ := strings.Cut(text[i:], "\n")
		return rest
	}
	const more = " -config=/etc/vault-agent/ssh-host.hcl"
	unit, dropIn := line(read(t, service)), line(read(t, "ssh-host/etc/systemd/system/vault-agent.service.d/ssh-host.conf"))
	if strings.Replace(dropIn, more, "", 1) != unit || !strings.Contains(dropIn, more) {
		t.Errorf("the drop-in runs\n%s\nwant the unit's command and %s\n%s", dropIn, more, unit)
	}
}
