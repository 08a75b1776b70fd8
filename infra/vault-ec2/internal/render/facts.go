package render

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// lookupTimeout bounds the calls of EC2, IAM and STS.
const lookupTimeout = 30 * time.Second

// fromEC2 returns the facts of an instance in the caller's own account and region, with its IAM role where needsRole says so.
func fromEC2(ctx context.Context, id string, needsRole func(facts.Instance) bool) (facts.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	c, err := deployed.LoadConfig(ctx)
	if err != nil {
		return facts.Instance{}, err
	}
	lookup := instance.New(instance.Options{Config: c, NeedsRole: needsRole})
	account, err := lookup.Account(ctx)
	if err != nil {
		return facts.Instance{}, err
	}
	ref := facts.Ref{ID: id, Place: facts.Place{Account: account, Region: c.Region}}
	s := lookup.Describe(ctx, []facts.Ref{ref})[ref]
	if s.Err == nil && !s.Found {
		s.Err = fmt.Errorf("EC2 has no instance %s in account %s, region %s", id, account, c.Region)
	}
	return s.Facts, s.Err
}

// fromFile reads an instance's facts from a JSON file. The names are those of facts.Instance, in any case; an unknown name
// is an error.
func fromFile(file string) (facts.Instance, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return facts.Instance{}, fmt.Errorf("reading the facts: %w", err)
	}
	var f facts.Instance
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return facts.Instance{}, fmt.Errorf("reading the facts in %s: %w", file, err)
	}
	return f, nil
}
