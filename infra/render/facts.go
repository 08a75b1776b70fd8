package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// lookupTimeout bounds the calls of EC2, IAM and STS.
const lookupTimeout = 30 * time.Second

// fromEC2 returns the facts of an instance in the caller's own account and region.
func fromEC2(ctx context.Context, id string) (facts.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return facts.Instance{}, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	if c.Region == "" {
		return facts.Instance{}, errors.New("no AWS region is set: set AWS_REGION, or AWS_PROFILE to a profile with one")
	}
	lookup := instance.New(instance.Options{Config: c})
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

// madeUp returns an instance that matches p, with the tags of p's match and no others.
func madeUp(p *grant.Profile) facts.Instance {
	f := facts.Instance{
		ID: "i-0123456789abcdef0", State: facts.Running, Account: "123456789012", Region: "us-east-1", VPCID: "vpc-0a1b2c3d",
		SubnetID: "subnet-0a1b2c3d", ImageID: "ami-0a1b2c3d4e5f60718", Type: "m5.large", PrivateDNSName: "ip-10-1-1-4.ec2.internal",
		IPv4s: []netip.Addr{netip.MustParseAddr("10.1.1.4")}, LaunchTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Tags: map[string]string{},
	}
	first := func(into *string, values []string) {
		if len(values) > 0 {
			*into = filled(values[0], *into)
		}
	}
	if ids := p.Match.AccountIDs; len(ids) > 0 { // stars become zeros, up to the length of an account ID
		zeros := strings.Repeat("0", len(f.Account)-len(strings.ReplaceAll(ids[0], "*", "")))
		f.Account = strings.ReplaceAll(strings.Replace(ids[0], "*", zeros, 1), "*", "")
	}
	first(&f.Region, p.Match.Regions)
	first(&f.VPCID, p.Match.VPCIDs)
	f.AvailabilityZone = f.Region + "a"
	f.IAMRoleARN = arn(p.Match.IAMRoleARN, "role/sample", f.Account)
	f.IAMInstanceProfileARN = arn(p.Match.IAMInstanceProfileARN, "instance-profile/sample", f.Account)
	for k, v := range p.Match.Tags {
		f.Tags[k] = filled(v, "sample")
	}
	return f
}

// arn returns an ARN that matches pattern: its stars become the account, the resource and AWS's usual parts.
func arn(pattern, resource, account string) string {
	if pattern == "" {
		return "arn:aws:iam::" + account + ":" + resource
	}
	parts := strings.SplitN(pattern, ":", 6)
	for i, standard := range []string{"arn", "aws", "iam", "", account, resource} {
		if i < len(parts) {
			parts[i] = filled(parts[i], standard)
		}
	}
	return strings.Join(parts, ":")
}

// filled returns a text that matches pattern: whole for a lone star, otherwise "sample" for each star.
func filled(pattern, whole string) string {
	if pattern == "*" {
		return whole
	}
	return strings.ReplaceAll(pattern, "*", "sample")
}
