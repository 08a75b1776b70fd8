package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/instance/unit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/wire"
)

// AgentOptions configure an instance's Vault Agent.
type AgentOptions struct {
	Role string        // worker, master or etcd: the role file of infra/instance
	IAM  bool          // log in by the iam type
	Wait time.Duration // from the start to the first login

	// SeenAs is the address from which Vault sees the instance's connections, as behind a load balancer or a NAT; empty for the
	// instance's own.
	SeenAs   string
	Metadata fleet.MetadataOptions
	// Files replace files of infra/instance or add to them, by path without the leading slash.
	Files map[string]string
	// Env replaces variables of the unit, as lines of vault.env do.
	Env []string
}

// OwnTemplate returns the options of a worker with a template of its own: it takes the name from the metadata service, in a VPC with
// another domain than EC2's.
func OwnTemplate() AgentOptions {
	return AgentOptions{
		Role: "worker", Metadata: fleet.MetadataOptions{Domain: "corp.example"},
		Files: map[string]string{"etc/vault-agent/templates/kubelet.ctmpl": `{{ with pkiCert (printf "alice_cluster/pki/k8s/issue/%s-kubelet" (env "INSTANCE_ID"))
  (printf "common_name=system:node:%s" (env "FQDN")) (printf "alt_names=%s" (env "FQDN")) "ttl=24h" -}}
{{ .Cert }}{{ .CA }}{{ .Key }}{{ end }}
`},
	}
}

// agentRules are the rules of the shipped unit, where this machine can apply them.
type agentRules struct {
	unit    unit.Unit
	applied bool
}

// Agent is Vault Agent on one instance, with the files of infra/instance as they are shipped, except for their folder and
// the owner of the files they write. Its connections to Vault come from the instance's address. As root on Linux, it runs under
// the shipped unit's capabilities and mounts.
type Agent struct {
	Root      string // the folder that replaces / on the instance
	VaultAddr string // Vault's address for this instance
	Metadata  *fleet.Metadata

	world    *World
	options  AgentOptions
	rules    agentRules
	env      []string
	forward  net.Listener
	process  *parts.Process
	instance fleet.Instance
	mu       sync.Mutex
	log      bytes.Buffer
}

// Write appends Agent's output to its log.
func (a *Agent) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(p)
}

// Log returns Agent's output so far.
func (a *Agent) Log() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

// NewAgent writes an instance's files and starts its metadata service. Boot starts Agent itself. The caller must close it.
func (w *World) NewAgent(i fleet.Instance, o AgentOptions) (*Agent, error) {
	a := &Agent{world: w, options: o, instance: i, Root: filepath.Join(w.RunDir, "instance-"+i.ID)}
	err := a.layOut()
	if err == nil {
		a.Metadata, err = w.Fleet.Metadata(i, o.Metadata)
	}
	if err == nil {
		// Agent has no setting for its source address.
		a.forward, err = wire.Start(wire.Options{To: strings.TrimPrefix(w.VaultAddr, "https://"), From: net.ParseIP(cmp.Or(o.SeenAs, i.PrivateIP))})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing Vault Agent on %s: %w", i.ID, err), a.Close())
	}
	a.VaultAddr = "https://" + a.forward.Addr().String()
	a.env = append(os.Environ(),
		"PATH="+a.path("usr/bin")+":"+os.Getenv("PATH"),
		"AWS_EC2_METADATA_V1_DISABLED=true", "AWS_EC2_METADATA_SERVICE_ENDPOINT="+a.Metadata.URL,
		"VAULT_ADDR="+a.VaultAddr, "VAULT_CACERT="+a.path("etc/vault-agent/vault-ca.pem"), "VAULT_NAMESPACE="+w.VaultNamespace,
		"VAULT_AUTH_MOUNT="+w.AuthMount, "VAULT_IAM_SERVER_ID="+ServerID, "VAULT_STS_REGION="+w.Region,
		"RUNTIME_DIRECTORY="+a.path("run/vault-agent"), "STATE_DIRECTORY="+a.path("var/lib/vault-agent"),
	)
	a.env = append(a.env, o.Env...)
	if o.IAM {
		a.env = append(a.env, "VAULT_AUTH_TYPE=iam",
			"AWS_CONTAINER_CREDENTIALS_FULL_URI="+a.Metadata.CredentialsURL, "AWS_CONTAINER_AUTHORIZATION_TOKEN="+a.Metadata.CredentialsToken)
	}
	return a, nil
}

func (a *Agent) path(parts ...string) string {
	return filepath.Join(append([]string{a.Root}, parts...)...)
}

// layOut copies infra/instance below the root, and adds a systemctl that logs its arguments.
func (a *Agent) layOut() error {
	owner, err := user.Current()
	if err != nil {
		return err
	}
	group, err := user.LookupGroupId(owner.Gid)
	if err != nil {
		return err
	}
	shipped := filepath.Join(a.world.workspace.RepoRoot, "infra", "instance")
	moved := strings.NewReplacer(
		`"/etc/`, `"`+a.path("etc")+"/", `"/usr/local/`, `"`+a.path("usr/local")+"/",
		`user        = "etcd"`, `user = "`+owner.Username+`"`, `group       = "etcd"`, `group = "`+group.Name+`"`,
	)
	for _, part := range []string{"etc/vault-agent", "usr/local/lib/vault-agent"} {
		if err := a.copyShipped(shipped, part, moved); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(filepath.Join(shipped, "etc/systemd/system/vault-agent.service"))
	if err != nil {
		return err
	}
	a.rules = agentRules{unit: unit.Parse(string(text) + a.options.Files[sshDropIn]), applied: canApplyRules()}
	folders := []string{"run", "var/lib"}
	if !a.rules.applied { // the unit makes them
		folders = []string{"run/vault-agent", "var/lib/vault-agent"}
	}
	for _, folder := range folders {
		if err := os.MkdirAll(a.path(folder), 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(
		write(a.path("etc/vault-agent/vault-ca.pem"), a.world.VaultCAPEM, 0o644),
		write(a.path("usr/bin/systemctl"), "#!/bin/sh\necho \"$*\" >>'"+a.path("run/vault-agent/systemctl")+"'\n", 0o755),
	); err != nil {
		return err
	}
	for path, text := range a.options.Files {
		if err := write(a.path(path), moved.Replace(text), modeOf(path)); err != nil {
			return err
		}
	}
	return nil
}

// sshDropIn is the drop-in of infra/instance/ssh-host for the unit.
const sshDropIn = "etc/systemd/system/vault-agent.service.d/ssh-host.conf"

// modeOf returns the mode of a file of an instance: a program below /usr is executable.
func modeOf(path string) fs.FileMode {
	if strings.HasPrefix(path, "usr/") {
		return 0o755
	}
	return 0o644
}

// copyShipped copies a folder of infra/instance below the root, with its texts changed.
func (a *Agent) copyShipped(shipped, folder string, change *strings.Replacer) error {
	return filepath.WalkDir(filepath.Join(shipped, folder), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(shipped, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return write(a.path(relative), change.Replace(string(text)), info.Mode())
	})
}

func write(path, text string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}

// canApplyRules reports whether this process may make a mount namespace and limit capabilities.
func canApplyRules() bool {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return false
	}
	return exec.Command("unshare", "--mount", "--propagation", "private", "--", "setpriv", "--no-new-privs", "--", "true").Run() == nil
}

// UnderRules reports whether the Agent runs under the unit's capabilities and mounts. Without root it does not.
func (a *Agent) UnderRules() bool { return a.rules.applied }

// PID returns the process ID of the running Agent.
func (a *Agent) PID() int { return a.process.PID() }

// Freeze stops the running Agent until Thaw. Its clocks go on.
func (a *Agent) Freeze() error { return a.process.Suspend() }

// Thaw continues a frozen Agent.
func (a *Agent) Thaw() error { return a.process.Continue() }

// command returns a command line under the unit's rules where they can be applied, else as it is.
func (a *Agent) command(line ...string) []string {
	if !a.rules.applied {
		return line
	}
	return a.rules.unit.Command(a.Root, line...)
}

// Boot does the work of systemd for vault-agent.service: it runs identity, and then Agent with the files that identity wrote.
func (a *Agent) Boot(ctx context.Context) error {
	program, err := a.world.Binary.Agent(ctx, a.world.workspace) // which may build it
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second+a.options.Wait)
	defer cancel()
	select {
	case <-time.After(a.options.Wait):
	case <-ctx.Done():
		return ctx.Err()
	}
	line := a.command(a.path("usr/local/lib/vault-agent/identity"))
	identity := exec.CommandContext(ctx, line[0], line[1:]...)
	identity.Env = a.env
	if out, err := identity.CombinedOutput(); err != nil {
		return fmt.Errorf("running identity on %s: %w: %s", a.instance.ID, err, out)
	}
	values, err := os.ReadFile(a.path("run/vault-agent/instance.env"))
	if err != nil {
		return err
	}
	line = a.command(program, "agent", "-config="+a.path("etc/vault-agent/agent.hcl"), "-config="+a.path("etc/vault-agent", a.options.Role+".hcl"),
		"-config="+a.path("run/vault-agent/login.hcl"))
	a.process, err = parts.Start(parts.Command{
		Name: "Vault Agent on " + a.instance.ID, Path: line[0], Args: line[1:], Dir: a.Root, Log: a.world.workspace.Log("agent-" + a.instance.ID), Copy: a,
		Env: append(a.env, strings.Fields(string(values))...),
	})
	return err
}

// Stop ends Agent as a shutdown does. Its files stay.
func (a *Agent) Stop() error {
	if a.process == nil {
		return nil
	}
	process := a.process
	a.process = nil
	return process.Stop()
}

// Close ends Agent, its metadata service and its connections.
func (a *Agent) Close() error {
	err := a.Stop()
	if a.forward != nil {
		err = errors.Join(err, a.forward.Close())
	}
	if a.Metadata != nil {
		err = errors.Join(err, a.Metadata.Close())
	}
	return err
}

// WaitFor waits until a file of the instance is not empty and contains a text, and returns all its text.
func (a *Agent) WaitFor(ctx context.Context, file, text string) (string, error) {
	for {
		content, err := os.ReadFile(a.path(file))
		if err == nil && len(content) > 0 && strings.Contains(string(content), text) {
			return string(content), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for %q in %s of %s, got %q: %w; Vault Agent's log:\n%s", text, file, a.instance.ID, content, ctx.Err(), a.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// WaitForLog waits until Agent's log contains text at least so many times, and returns the log.
func (a *Agent) WaitForLog(ctx context.Context, text string, times int) (string, error) {
	for {
		if log := a.Log(); strings.Count(log, text) >= times {
			return log, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for Vault Agent on %s to log %q: %w; its log:\n%s", a.instance.ID, text, ctx.Err(), a.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
