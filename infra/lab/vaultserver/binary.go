package vaultserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// Environment variables that choose the program. Make sets them from its variables VAULT and BAO_AWS_PLUGIN.
const (
	programEnv = "LAB_VAULT"          // a path, or the number of a version that the lab can build
	pluginEnv  = "LAB_BAO_AWS_PLUGIN" // OpenBao's plugin of the AWS auth method
)

// Binary is the program that runs as server and as client.
type Binary struct {
	vault.Server
	Path string
	// Plugin is OpenBao's plugin of the AWS auth method; empty for Vault, which contains it.
	Plugin string
}

// Agent returns the program that runs as the instances' Agent. It is the same program, but for OpenBao a Vault: bao's agent has no
// aws method.
func (b Binary) Agent(ctx context.Context, w *parts.Workspace) (string, error) {
	if b.Product != vault.OpenBao {
		return b.Path, nil
	}
	agent, _, err := findVault(ctx, w)
	return agent.Path, err
}

// Find returns the program to run: that of LAB_VAULT, else a supported `vault` on the PATH, else one built from Vault's Go
// module. It prints which one.
func Find(ctx context.Context, w *parts.Workspace) (Binary, error) {
	b, source, err := find(ctx, w)
	if err != nil {
		return Binary{}, err
	}
	w.Progress("%s, %s", b, source)
	return b, nil
}

func find(ctx context.Context, w *parts.Workspace) (b Binary, source string, err error) {
	if chosen := os.Getenv(programEnv); chosen != "" {
		return findChosen(ctx, w, chosen)
	}
	return findVault(ctx, w)
}

// findVault returns a supported `vault` on the PATH, else one built from Vault's Go module.
func findVault(ctx context.Context, w *parts.Workspace) (b Binary, source string, err error) {
	if path, err := exec.LookPath("vault"); err == nil {
		b, err := identify(ctx, path)
		if err == nil && b.supported() {
			return b, "found on the PATH as " + path, nil
		}
		if err != nil {
			w.Progress("%v; the lab does not use it", err)
		} else {
			w.Progress("%s is %s, which the lab does not use by itself: VAULT=%[1]s would", path, b)
		}
	}
	return built(ctx, w, Versions()[0])
}

// Choose returns the setting of an environment that makes the lab run a program: a path, or a version that it can build.
func Choose(program string) string { return programEnv + "=" + program }

// FindChosen returns a program by its path, or by its version, which is built if need be.
func FindChosen(ctx context.Context, w *parts.Workspace, program string) (Binary, error) {
	b, _, err := findChosen(ctx, w, program)
	return b, err
}

// findChosen returns the program that LAB_VAULT names.
func findChosen(ctx context.Context, w *parts.Workspace, chosen string) (b Binary, source string, err error) {
	if v, ok := versionNumbered(chosen); ok {
		return built(ctx, w, v)
	}
	path, err := exec.LookPath(chosen)
	if err != nil {
		return Binary{}, "", fmt.Errorf("looking for the program of VAULT=%s (want a path to vault or bao, or a version of infra/lab/vaultserver/versions.go): %w", chosen, err)
	}
	if b, err = identify(ctx, path); err != nil || b.Product != vault.OpenBao {
		return b, "chosen as " + path, err
	}
	plugin := os.Getenv(pluginEnv)
	if plugin == "" {
		return b, "", fmt.Errorf("%s has no AWS auth method of its own: name its plugin with BAO_AWS_PLUGIN=/path/to/the/plugin", b)
	}
	// The server refuses a plugin behind a symbolic link.
	if b.Plugin, err = filepath.EvalSymlinks(plugin); err != nil {
		return b, "", fmt.Errorf("looking for the plugin of BAO_AWS_PLUGIN: %w", err)
	}
	return b, "chosen as " + path + " with the plugin " + b.Plugin, nil
}

func built(ctx context.Context, w *parts.Workspace, v Version) (b Binary, source string, err error) {
	path, err := build(ctx, w, v)
	return Binary{Path: path, Server: vault.Server{Product: vault.HashiCorp, Version: v.Number}}, "built from its Go module: " + path, err
}

var versionLine = regexp.MustCompile(`^(Vault|OpenBao) v([0-9][^\s,]*)`)

// identify asks a program for its product and version.
func identify(ctx context.Context, path string) (Binary, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	path, err := filepath.Abs(path)
	if err != nil {
		return Binary{}, err
	}
	cmd := exec.CommandContext(ctx, path, "version")
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		return Binary{}, fmt.Errorf("running %s version: %w", path, err)
	}
	found := versionLine.FindStringSubmatch(string(out))
	if found == nil {
		return Binary{}, fmt.Errorf("running %s version: %q is not the answer of Vault or OpenBao", path, strings.TrimSpace(string(out)))
	}
	server := vault.Server{Product: vault.Product(found[1]), Version: found[2], Enterprise: strings.Contains(found[2], "+ent")}
	return Binary{Path: path, Server: server}, nil
}

// supported reports whether the lab takes the program without being told to: a community edition of Vault, since Enterprise
// does not start without a licence, of a version on which the tests run.
func (b Binary) supported() bool {
	return b.Product == vault.HashiCorp && !b.Enterprise && b.Standing() == vault.Tried
}

// environment returns the lab's environment without the settings of a user's own Vault. The licence of Enterprise stays.
func environment() []string {
	var kept []string
	for _, e := range os.Environ() {
		own := strings.HasPrefix(e, "VAULT_") || strings.HasPrefix(e, "BAO_")
		if !own || strings.HasPrefix(e, "VAULT_LICENSE") {
			kept = append(kept, e)
		}
	}
	return kept
}
