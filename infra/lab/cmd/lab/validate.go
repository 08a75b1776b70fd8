package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
)

// regions are one or two of each partition, since the available features differ between them.
var regions = []string{"us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"}

// validate lints the templates as written and as expanded for CloudFormation, since each form hides some faults of the other.
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
	expanded := filepath.Join(w.Run, "template.json")
	if err := expand(ctx, python, template, expanded); err != nil {
		return err
	}
	for _, t := range []string{template, expanded, filepath.Join(root, "infra", "member-account", "template.yaml")} {
		args := append([]string{"-c", "import sys; from cfnlint.runner import main; sys.exit(main())", "-r"}, regions...)
		lint := exec.CommandContext(ctx, python, append(args, "-t", t)...)
		lint.Stdout, lint.Stderr = os.Stdout, os.Stderr
		if err := lint.Run(); err != nil {
			return fmt.Errorf("cfn-lint of %s: %w", t, err)
		}
		progress("%s: cfn-lint found nothing for %s", t, strings.Join(regions, ", "))
	}
	return nil
}

// expand writes a template's expansion to a file.
func expand(ctx context.Context, python, template, file string) error {
	expanded, err := stack.Expand(ctx, python, template, regions[0])
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
