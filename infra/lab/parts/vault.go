package parts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// vaultBuildLimit is generous: the first build fetches and compiles a few
// hundred modules.
const vaultBuildLimit = 45 * time.Minute

// Vault is a running Vault server: unsealed and empty.
type Vault struct {
	Address   string // https://127.0.0.1:<port>
	CAPEM     string // the CA that a client must trust
	RootToken string
	AuditLog  string // file of JSON lines
	Process   *Process
}

// StartVault builds the Vault server unless the cache has it, and starts it with
// its storage in memory and its audit log in the run folder.
func StartVault(ctx context.Context, w *Workspace) (*Vault, error) { return startVault(ctx, w) }

// StartVaultOnRaft is StartVault with one node of Raft storage in the run folder, where each write waits for the disk.
func StartVaultOnRaft(ctx context.Context, w *Workspace) (*Vault, error) {
	return startVault(ctx, w, "-storage", "raft", "-path", filepath.Join(w.Run, "raft"))
}

func startVault(ctx context.Context, w *Workspace, more ...string) (*Vault, error) {
	binary, err := BuildVault(ctx, w)
	if err != nil {
		return nil, err
	}
	readyFile := filepath.Join(w.Run, "vault.ready.json")
	v := &Vault{AuditLog: filepath.Join(w.Run, "vault-audit.jsonl")}
	v.Process, err = Start(Command{
		Name: "the Vault server", Path: binary, Dir: w.Run, Log: w.Log("vault"),
		Args: append([]string{"-audit", v.AuditLog, "-ready", readyFile}, more...),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	err = v.Process.WaitReady(ctx, func(context.Context) error {
		line, err := os.ReadFile(readyFile)
		if err != nil {
			return err
		}
		var ready struct {
			Address   string `json:"address"`
			CAPEM     string `json:"ca_pem"`
			RootToken string `json:"root_token"`
		}
		if err := json.Unmarshal(line, &ready); err != nil {
			return fmt.Errorf("reading %s: %w", readyFile, err)
		}
		v.Address, v.CAPEM, v.RootToken = ready.Address, ready.CAPEM, ready.RootToken
		return nil
	})
	if err != nil {
		_ = v.Process.Stop()
		return nil, err
	}
	// The file contains the root token and is not read again.
	if err := os.Remove(readyFile); err != nil {
		_ = v.Process.Stop()
		return nil, fmt.Errorf("removing the ready file: %w", err)
	}
	return v, nil
}

// BuildVault returns the path of the lab's Vault server, built on first use from
// infra/lab/vaultserver and cached under a hash of its sources and the toolchain.
func BuildVault(ctx context.Context, w *Workspace) (string, error) {
	return buildVault(ctx, w, "vaultserver", "building the Vault server (first run only, several minutes)")
}

// BuildVaultAgent returns the path of Vault Agent, built on first use from
// infra/lab/vaultagent. Only the tests of the instance's side need it.
func BuildVaultAgent(ctx context.Context, w *Workspace) (string, error) {
	return buildVault(ctx, w, "vaultagent", "building Vault Agent (first run only, several minutes)")
}

func buildVault(ctx context.Context, w *Workspace, name, doing string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, vaultBuildLimit)
	defer cancel()
	sources := filepath.Join(w.RepoRoot, "infra", "lab", name)
	key, err := buildKey(ctx, sources)
	if err != nil {
		return "", fmt.Errorf("hashing the sources in %s: %w", sources, err)
	}
	store := filepath.Join(w.Cache, name)
	binary := filepath.Join(store, key, name)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	err = w.locked(ctx, name, func() error {
		if _, err := os.Stat(binary); err == nil {
			return nil // another lab built it while this one waited
		}
		return w.slowly(ctx, doing, func(ctx context.Context) error {
			if err := os.RemoveAll(store); err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
				return err
			}
			part := binary + ".part"
			cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", part, ".")
			cmd.Dir = sources
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
			if err := run(cmd); err != nil {
				return err
			}
			return os.Rename(part, binary)
		})
	})
	return binary, err
}

// buildKey returns a hash of all inputs of the binary: sources, module files, toolchain.
func buildKey(ctx context.Context, dir string) (string, error) {
	h := sha256.New()
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOOS", "GOARCH")
	cmd.Dir, cmd.Stdout = dir, h
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("reading go's version (install Go, or put it on the PATH): %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	files = append(files, filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum"))
	slices.Sort(files)
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s\n", filepath.Base(file))
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", file, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// run runs a command. The error contains the end of its output.
func run(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := bytes.TrimSpace(out.Bytes())
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, text[max(0, len(text)-1500):])
	}
	return nil
}
