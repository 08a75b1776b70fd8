package vaultserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// Environment variables that choose the program. Make sets them from its variables VAULT and BAO_AWS_PLUGIN.
const (
	programEnv = "LAB_VAULT"          // a path, or the number of a version that the lab can build
	pluginEnv  = "LAB_BAO_AWS_PLUGIN" // OpenBao's plugin of the AWS auth method
)

// The products that the lab can run.
const (
	vaultProduct = "Vault"
	baoProduct   = "OpenBao"
)

// oldest and newest are the supported minor versions of Vault 1.
const oldest, newest = 16, 21

// Binary is the program that runs as server and as client.
type Binary struct {
	Path    string
	Product string // Vault or OpenBao
	Version string // "1.21.4", "1.21.4+ent"
	// Plugin is OpenBao's plugin of the AWS auth method; empty for Vault, which contains it.
	Plugin string
}

// Agent returns the program that runs as the instances' Agent. It is the same program, but for OpenBao a Vault: bao's agent has no
// aws method.
func (b Binary) Agent(ctx context.Context, w *parts.Workspace) (string, error) {
	if b.Product != baoProduct {
		return b.Path, nil
	}
	agent, _, err := findVault(ctx, w)
	return agent.Path, err
}

// String returns product and version.
func (b Binary) String() string { return b.Product + " " + b.Version }

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
	if b, err = identify(ctx, path); err != nil || b.Product != baoProduct {
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
	return Binary{Path: path, Product: vaultProduct, Version: v.Number}, "built from its Go module: " + path, err
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
	return Binary{Path: path, Product: found[1], Version: found[2]}, nil
}

// supported reports whether the lab takes the program without being told to: a community edition, since Enterprise does not
// start without a licence, of a supported minor version.
func (b Binary) supported() bool {
	minor, isOne := strings.CutPrefix(b.Version, "1.")
	number, _, _ := strings.Cut(minor, ".")
	n, err := strconv.Atoi(number)
	return b.Product == vaultProduct && isOne && err == nil && n >= oldest && n <= newest && !strings.Contains(b.Version, "+ent")
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
