package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// writeProfiles writes the world's profiles and those of more into the run's folder. moto's VPC IDs are random, so the
// lab's copies match every VPC where the built-in profiles name an example's. They grant all addresses of an instance, so that a
// test can change a grant by assigning one.
func (w *World) writeProfiles(own, more fs.FS) error {
	w.Profiles = filepath.Join(w.RunDir, "profiles")
	if own == nil {
		own = templates.FS
	}
	if err := os.CopyFS(w.Profiles, own); err != nil {
		return fmt.Errorf("copying the profiles: %w", err)
	}
	if more != nil {
		if err := os.CopyFS(w.Profiles, more); err != nil {
			return fmt.Errorf("copying the lab's own profiles: %w", err)
		}
	}
	files, err := filepath.Glob(filepath.Join(w.Profiles, "*", "profile.yaml"))
	if err != nil {
		return fmt.Errorf("listing the profiles: %w", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading a profile: %w", err)
		}
		changed := strings.NewReplacer("vpc_ids: [vpc-0a1b2c3d]", `vpc_ids: ["vpc-*"]`, "addresses: primary", "addresses: all").Replace(string(text))
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			return fmt.Errorf("writing a profile: %w", err)
		}
	}
	return nil
}
