package vaultserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// sources are the programs to build. Their folder's name hides them from this module, which must not depend on the server.
//
//go:embed _main/minimal.go _main/whole.go
var sources embed.FS

// buildLimit is generous: the first build fetches and compiles some 1,900 packages, with all plugins 2,500.
const buildLimit = 45 * time.Minute

// build returns the path of the server of a version, built on first use and cached under a hash of its sources and the
// toolchain.
func build(ctx context.Context, w *parts.Workspace, v Version) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	b := builder{Version: v, main: "_main/minimal.go"}
	if v.Whole {
		b.main = "_main/whole.go"
	}
	key, err := b.key(ctx)
	if err != nil {
		return "", fmt.Errorf("hashing the sources of Vault %s: %w", v.Number, err)
	}
	b.store = filepath.Join(w.Cache, "vault", v.Number+"-"+key)
	binary := filepath.Join(b.store, "vault")
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	err = w.Locked(ctx, "vault-"+v.Number, func() error {
		if _, err := os.Stat(binary); err == nil {
			return nil // another lab built it while this one waited
		}
		return w.Slowly(ctx, "building Vault "+v.Number+" from its Go module (once; a vault on the PATH saves it)", func(ctx context.Context) error {
			return b.build(ctx, binary)
		})
	})
	return binary, err
}

type builder struct {
	Version
	main  string // in sources
	store string // folder in the cache
}

// key returns a hash of all inputs of the binary: main, version, toolchain.
func (b builder) key(ctx context.Context) (string, error) {
	h := sha256.New()
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOOS", "GOARCH")
	cmd.Stdout = h
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("reading go's version (install Go, or put it on the PATH): %w", err)
	}
	text, err := sources.ReadFile(b.main)
	if err != nil {
		return "", err
	}
	h.Write(text)
	fmt.Fprintf(h, "%+v", b.Version)
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// build writes a module with main and a go.mod that resolves as Vault's own does, and builds it. The checksum database
// vouches for the modules, since a go.sum of each version would be thousands of lines.
func (b builder) build(ctx context.Context, binary string) error {
	if err := os.RemoveAll(b.store); err != nil {
		return err
	}
	dir := filepath.Join(b.store, "src")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := sources.ReadFile(b.main)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "main.go"), text, 0o600)
	}
	if err == nil {
		err = b.writeGoMod(ctx, dir)
	}
	if err != nil {
		return err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", binary + ".part"}
	if !b.Whole {
		args = append(args, "-tags", "minimal")
	}
	if _, err := goCommand(ctx, dir, append(args, ".")...); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(binary+".part", binary)
}

// writeGoMod writes the module's go.mod: Vault's version of Go, which decides about GODEBUG settings, and its replacements of
// other modules.
func (b builder) writeGoMod(ctx context.Context, dir string) error {
	file := filepath.Join(dir, "go.mod")
	if err := os.WriteFile(file, []byte("module vault.lab/vault\n"), 0o600); err != nil {
		return err
	}
	out, err := goCommand(ctx, dir, "mod", "download", "-json", "github.com/hashicorp/vault@v"+b.Number)
	if err != nil {
		return err
	}
	var module struct{ Dir, GoMod string }
	if err := json.Unmarshal(out, &module); err != nil {
		return fmt.Errorf("reading go's answer about Vault's module: %w", err)
	}
	if out, err = goCommand(ctx, dir, "mod", "edit", "-json", module.GoMod); err != nil {
		return err
	}
	var own struct {
		Go      string
		Replace []struct {
			Old, New struct{ Path, Version string }
		}
	}
	if err := json.Unmarshal(out, &own); err != nil {
		return fmt.Errorf("reading the go.mod of Vault %s: %w", b.Number, err)
	}
	edit := []string{
		"mod", "edit", "-go=" + own.Go, "-require=github.com/hashicorp/vault@v" + b.Number,
		"-replace=github.com/hashicorp/vault/sdk=github.com/hashicorp/vault/sdk@v" + b.SDK,
	}
	if b.API != "" {
		edit = append(edit, "-replace=github.com/hashicorp/vault/api=github.com/hashicorp/vault/api@v"+b.API)
	}
	for _, r := range own.Replace {
		if r.New.Version == "" {
			continue // a folder of its own tree
		}
		edit = append(edit, "-replace="+at(r.Old.Path, r.Old.Version)+"="+at(r.New.Path, r.New.Version))
	}
	if len(b.Edits) > 0 {
		if err := b.copyEdited(module.Dir, filepath.Join(dir, "vault")); err != nil {
			return err
		}
		edit = append(edit, "-replace=github.com/hashicorp/vault=./vault")
	}
	_, err = goCommand(ctx, dir, edit...)
	return err
}

func at(path, version string) string {
	if version == "" {
		return path
	}
	return path + "@" + version
}

// copyEdited copies Vault's module and applies the edits: go build takes no overlay below the module cache.
func (b builder) copyEdited(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("copying Vault's module to %s: %w", to, err)
	}
	for _, e := range b.Edits {
		file := filepath.Join(to, e.File)
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !bytes.Contains(text, []byte(e.Old)) {
			return fmt.Errorf("adapting Vault %s to the sdk %s: %s does not contain %q; correct versions.go", b.Number, b.SDK, e.File, e.Old)
		}
		if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte(e.Old), []byte(e.New)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// goCommand runs go in a folder and returns its output. The error contains the end of what it printed.
func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=mod")
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		text := strings.TrimSpace(problem.String())
		return nil, fmt.Errorf("go %s: %w: %s", strings.Join(args[:min(2, len(args))], " "), err, text[max(0, len(text)-1500):])
	}
	return out, nil
}
