package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
)

// allRegions is cfn-lint's word for every region that it has schemas of, since resource types and properties differ between them.
// It checks regions with equal schemas once: all of them take about as long as four, half a minute for all templates.
const allRegions = "ALL_REGIONS"

// validate lints the templates as written and as expanded for CloudFormation, since each form hides some faults of the other.
func validate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	w, interpreter, err := python(ctx)
	if err != nil {
		return err
	}
	template := filepath.Join(root, "template.yaml")
	expanded := filepath.Join(w.Run, "template.json")
	if err := expand(ctx, interpreter, template, expanded); err != nil {
		return err
	}
	began, tryout := time.Now(), filepath.Join(root, "infra", "vault-ec2", "internal", "tryout", "aws")
	lint := exec.CommandContext(ctx, interpreter, "-c", "import sys; from cfnlint.runner import main; sys.exit(main())", "-r", allRegions,
		"-t", template, expanded, filepath.Join(root, "infra", "member-account", "template.yaml"),
		filepath.Join(tryout, "place.yaml"), filepath.Join(tryout, "groups.yaml"))
	lint.Stdout, lint.Stderr = os.Stdout, os.Stderr
	if err := lint.Run(); err != nil {
		return fmt.Errorf("cfn-lint: %w", err)
	}
	progress("cfn-lint found nothing in the templates, as written and as expanded, in any region (%.0f s)", time.Since(began).Seconds())
	return nil
}

// expand writes a template's expansion to a file.
func expand(ctx context.Context, python, template, file string) error {
	expanded, err := stack.Expand(ctx, python, template, "us-east-1")
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(expanded, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the expanded template: %w", err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return fmt.Errorf("writing the expanded template: %w", err)
	}
	return nil
}
