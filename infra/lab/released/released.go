// Package released makes the files of a release, and unpacks them as the people who install it do.
package released

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// Version is the version of the releases that Make makes.
const Version = "0.0.0-test"

// limit bounds the builds of a release, with cold caches on a slow machine.
const limit = 20 * time.Minute

// Last returns the tag of the last release before a checkout's commit; ok is false if it has none.
func Last(ctx context.Context, checkout string) (tag string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "describe", "--tags", "--abbrev=0", "--match=v*", "HEAD")
	cmd.Dir = checkout
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err == nil
}

// Make makes the files of a release in a checkout, with the command for this machine alone: the command for each system is made in the
// same way. It builds in an empty folder, and returns the folder of the files and the output.
func Make(ctx context.Context, checkout, build string) (folder string, output []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "make", "release-snapshot", "BUILD_DIR="+build, "PLATFORMS="+runtime.GOOS+"/"+runtime.GOARCH,
		"NUMBER="+Version, "COMMIT=0123456789012345678901234567890123456789", "SOURCE_DATE_EPOCH=1790000000")
	cmd.Dir = checkout
	if output, err = cmd.CombinedOutput(); err != nil {
		return "", output, fmt.Errorf("make release-snapshot in %s: %w\n%s", checkout, err, output)
	}
	return filepath.Join(build, "release"), output, nil
}

// Unpack unpacks the package for this machine's processor into a folder: template.yaml, build/<function>/bootstrap and the rest. It
// puts the command beside the functions, as build/vault-ec2.
func Unpack(release, to string) error {
	processor := map[string]string{"amd64": "x86_64"}[runtime.GOARCH]
	if processor == "" {
		processor = runtime.GOARCH
	}
	if err := unzip(filepath.Join(release, "vault-ec2-provisioner-"+processor+".zip"), to); err != nil {
		return fmt.Errorf("unpacking the functions of %s: %w", release, err)
	}
	if err := parts.Unpack(filepath.Join(release, "vault-ec2-"+runtime.GOOS+"-"+runtime.GOARCH+".tar.gz"), filepath.Join(to, "build")); err != nil {
		return fmt.Errorf("unpacking the command of %s: %w", release, err)
	}
	return nil
}

func unzip(file, to string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		content, err := f.Open()
		if err != nil {
			return err
		}
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%s is outside of its archive", f.Name)
		}
		if err := errors.Join(parts.WriteFile(filepath.Join(to, f.Name), f.Mode(), content), content.Close()); err != nil {
			return err
		}
	}
	return nil
}
