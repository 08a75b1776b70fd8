package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
)

// validate lints template.yaml as it is and as CloudFormation gets it: each finds what the other does not show.
func validate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	w, err := parts.NewWorkspace(root, "", progress)
	if err != nil {
		return err
	}
	python, err := parts.Python(ctx, w)
	if err != nil {
		return err
	}
	template := filepath.Join(root, "template.yaml")
	expanded, err := stack.Expand(ctx, python, template, "us-east-1")
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(expanded, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the expanded template: %w", err)
	}
	file := filepath.Join(w.Run, "template.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return fmt.Errorf("writing the expanded template: %w", err)
	}
	for _, t := range []string{template, file} {
		lint := exec.CommandContext(ctx, python, "-c", "import sys; from cfnlint.runner import main; sys.exit(main())", "-r", "us-east-1", "eu-central-1", "-t", t)
		lint.Stdout, lint.Stderr = os.Stdout, os.Stderr
		if err := lint.Run(); err != nil {
			return fmt.Errorf("cfn-lint of %s: %w", t, err)
		}
		progress("%s: cfn-lint found nothing", filepath.Base(t))
	}
	return nil
}
