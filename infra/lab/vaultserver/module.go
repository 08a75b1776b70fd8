package vaultserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

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

// without has a folder of sources for each module that the minimal build replaces with types that only fail: clients of clouds
// in which nothing of the lab runs. They were nearly half of all that had to be compiled.
var without = map[string]string{
	"github.com/hashicorp/go-discover":   "_main/without/go-discover",
	"github.com/hashicorp/go-gcp-common": "_main/without/go-gcp-common",
	"github.com/okta/okta-sdk-golang/v5": "_main/without/okta-sdk-golang",
}

// leaveOut replaces the modules of without in the module of a folder.
func leaveOut(ctx context.Context, dir string) error {
	edit := []string{"mod", "edit"}
	for module, folder := range without {
		own, err := fs.Sub(sources, folder)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.Base(folder))
		if err := os.CopyFS(to, own); err != nil {
			return fmt.Errorf("writing what replaces %s: %w", module, err)
		}
		// A go.mod beside the sources would hide them from go:embed.
		if err := os.WriteFile(filepath.Join(to, "go.mod"), []byte("module "+module+"\n"), 0o600); err != nil {
			return err
		}
		edit = append(edit, "-replace="+module+"=./"+filepath.Base(folder))
	}
	_, err := goCommand(ctx, dir, edit...)
	return err
}
