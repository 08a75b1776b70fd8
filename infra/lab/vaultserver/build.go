package vaultserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// sources are the programs to build. Their folder's name hides them from this module, which must not depend on the server.
//
//go:embed _main
var sources embed.FS

// buildLimit is generous: the first build fetches and compiles some 1,400 packages, with all plugins 2,500.
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
		return w.Slowly(ctx, "building Vault "+v.Number+" from its Go module (once, some minutes; a vault on the PATH saves them)", func(ctx context.Context) error {
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

// key returns a hash of all inputs of the binary: sources, version, toolchain.
func (b builder) key(ctx context.Context) (string, error) {
	h := sha256.New()
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOOS", "GOARCH")
	cmd.Stdout = h
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("reading go's version (install Go, or put it on the PATH): %w", err)
	}
	err := fs.WalkDir(sources, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := sources.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(text), text)
		return err
	})
	fmt.Fprintf(h, "%+v", b.Version)
	return hex.EncodeToString(h.Sum(nil))[:16], err
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
	if err == nil && !b.Whole {
		err = leaveOut(ctx, dir)
	}
	if err != nil {
		return err
	}
	// The flags are those of the functions, so that what both import, such as the standard library, is compiled once.
	args := []string{"build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags=-s -w", "-o", binary + ".part"}
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
