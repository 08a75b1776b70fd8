package instance_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/instance/unit"
)

const (
	service = "etc/systemd/system/vault-agent.service"
	// exposure bounds the score of systemd-analyze security, in tenths. The unit's service is root, which alone costs 4 of 100
	// tenths.
	exposure = "47"
)

// missing ends a test that cannot run here: it fails in CI, where everything is installed, and is skipped elsewhere.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s: CI must have it, see .github/actions/prepare", what)
	}
	t.Skipf("%s: not tested", what)
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p+" is not installed")
		}
	}
}

// asRoot returns a command that runs as root, by sudo where this process is not. The kernel's rules for capabilities and mounts
// cannot be tried otherwise.
func asRoot(t *testing.T, command ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		if exec.CommandContext(t.Context(), "sudo", "-n", "true").Run() != nil {
			missing(t, "root or sudo without a password: the unit's capabilities and mounts")
		}
		command = append([]string{"sudo", "-n"}, command...)
	}
	return exec.CommandContext(t.Context(), command[0], command[1:]...)
}

// root returns a folder with the top folders of a stock image.
func root(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, d := range []string{"etc", "run", "var/lib", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(folder, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 { // what a command as root has made cannot be removed otherwise
		t.Cleanup(func() {
			_ = exec.CommandContext(context.Background(), "sudo", "-n", "rm", "-rf", filepath.Join(folder, "etc"), filepath.Join(folder, "run"), filepath.Join(folder, "var")).Run()
		})
	}
	return folder
}

// The kernel refuses to execute a program with a file capability outside of the bounding set. HashiCorp's packages set
// cap_ipc_lock on vault.
func TestUnit_StartsAProgramWithAFileCapability(t *testing.T) {
	need(t, "setcap", "setpriv", "unshare")
	folder := root(t)
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	vault := filepath.Join(folder, "usr/bin/vault")
	if err := os.WriteFile(vault, bytes, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := asRoot(t, "setcap", "cap_ipc_lock=+ep", vault).CombinedOutput(); err != nil {
		t.Fatalf("setting the file capability: %v: %s", err, out)
	}
	shipped := unit.Parse(read(t, service))
	run := func(u unit.Unit) (string, error) {
		line := u.Command(folder, vault)
		out, err := asRoot(t, line...).CombinedOutput()
		return string(out), err
	}
	if out, err := run(shipped); err != nil {
		t.Errorf("the unit does not start a vault from HashiCorp's package: %v: %s", err, out)
	}
	without := unit.Parse(strings.Replace(read(t, service), "CAP_IPC_LOCK", "", 1))
	if out, err := run(without); err == nil || !strings.Contains(out, "Operation not permitted") {
		t.Errorf("without CAP_IPC_LOCK: got %v: %s, want the kernel's refusal, or this test shows nothing", err, out)
	}
}

// A stock image has neither /etc/kubernetes nor /etc/etcd. The command writes as Agent does: a file of another owner, in a
// folder that this owner can enter.
func TestUnit_WritesOnAStockImage(t *testing.T) {
	need(t, "setpriv", "unshare")
	const write = `for d in etc/kubernetes/pki etc/etcd/pki; do
mkdir -p $d && echo key >$d/new && chown 65534:65534 $d/new && mv $d/new $d/key.pem
setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all cat $d/key.pem || exit 1
done
echo nonce >var/lib/vault-agent/nonce && echo login >run/vault-agent/login.hcl
for f in etc/passwd usr/bin/vault etc/kubernetes.pem; do if echo no 2>/dev/null >$f; then echo "$f could be written"; fi; done`
	text := read(t, service)
	for _, c := range []struct{ name, text, want string }{
		{"as shipped", text, "key\nkey\n"},
		{"without its folders", strings.ReplaceAll(text, "ConfigurationDirectory=", "#"), "does not exist"},
		{"with folders that may be missing", strings.ReplaceAll(strings.ReplaceAll(text, "ConfigurationDirectory=", "#"),
			"ReadWritePaths=/etc/kubernetes /etc/etcd", "ReadWritePaths=-/etc/kubernetes -/etc/etcd"), "Read-only file system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// setpriv must set the user inside the unit's rules, which a service never does.
			text := strings.Replace(c.text, "CapabilityBoundingSet=", "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_SETPCAP ", 1)
			line := unit.Parse(text).Command(root(t), "/bin/sh", "-c", write)
			out, err := asRoot(t, line...).CombinedOutput()
			var failed *exec.ExitError
			if err != nil && !errors.As(err, &failed) {
				t.Fatal(err)
			}
			if got := string(out); !strings.Contains(got, c.want) || (c.want == "key\nkey\n" && got != c.want) {
				t.Errorf("got %v: %s, want %q", err, got, c.want)
			}
		})
	}
}

func TestUnit_PassesSystemdsChecks(t *testing.T) {
	need(t, "systemd-analyze")
	units, err := filepath.Glob("etc/systemd/system/*")
	if err != nil || len(units) == 0 {
		t.Fatal(units, err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"verify", "--man=no", "--recursive-errors=no"}, units...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// The unit's commands exist only on an instance.
		if !strings.Contains(line, "is not executable: No such file or directory") {
			t.Errorf("systemd-analyze verify: %v: %s", err, line)
		}
	}
	out, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold="+exposure, service).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: the exposure is over %s tenths: %v\n%s", exposure, err, out)
	}
}
