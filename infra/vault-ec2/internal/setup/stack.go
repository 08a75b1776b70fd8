package setup

import (
	"context"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

// ofStack looks the stack up, prints the options that it has, and returns o with them.
func (o Options) ofStack(ctx context.Context, out io.Writer) (Options, error) {
	c, err := deployed.LoadConfig(ctx)
	if err != nil {
		return o, err
	}
	s, err := deployed.FindStack(ctx, c, o.Stack)
	if err != nil {
		return o, err
	}
	t, err := o.take(s)
	if err != nil {
		return o, err
	}
	if err := t.profilesOf(ctx, s, c); err != nil {
		return o, err
	}
	fmt.Fprintf(out, "stack   %s in %s\n", s.Name, s.Region)
	for _, line := range t.lines {
		fmt.Fprintln(out, line)
	}
	return t.Options, nil
}

// profilesOf takes the profiles that the stack's functions use from its table, unless their folder was given: rights for others would take
// away those that the functions need.
func (t *taking) profilesOf(ctx context.Context, s deployed.Stack, c aws.Config) error {
	if from := s.Parameters["Profiles"]; t.Templates != "" || from == "" || from == deployed.BuiltIn {
		return nil
	}
	store, err := s.ProfileStore(c)
	if err != nil {
		return err
	}
	present, ok, err := store.Present(ctx)
	if err != nil {
		return fmt.Errorf("taking the profiles of stack %s (or name their folder with --templates-dir): %w", s.Name, err)
	}
	if ok {
		t.profiles = present.Files
		t.lines = append(t.lines, fmt.Sprintf("taken   the profiles %s  (Profiles=%s)", bundle.Short(present.Digest), store.Uses()))
	}
	return nil
}

// taking completes options with what a stack has.
type taking struct {
	Options
	lines []string // the options taken, and notices
}

// value sets an option from the stack, unless its flag was given or the stack has no value.
func (t *taking) value(flag, from, value string, option *string) {
	if value == "" || (t.Given != nil && t.Given(flag)) {
		return
	}
	*option = value
	t.line(flag, value, from)
}

func (t *taking) line(flag, value, from string) {
	t.lines = append(t.lines, fmt.Sprintf("taken   --%s %s  (%s)", flag, value, from))
}

func (t *taking) notice(format string, args ...any) {
	t.lines = append(t.lines, "notice  "+fmt.Sprintf(format, args...))
}

// take returns o with the stack's outputs and parameters where no flag was given. A function's role that the stack does not name is an
// error.
func (o Options) take(s deployed.Stack) (*taking, error) {
	t := &taking{Options: o}
	t.FunctionRoles = maps.Clone(o.FunctionRoles)
	p := s.Parameters
	t.value("deployment", "the stack's name", s.Name, &t.Deployment)
	t.value("auth-mount", "VaultAuthMount", p["VaultAuthMount"], &t.AuthMount)
	t.value("role-prefix", "VaultLoginRole", p["VaultLoginRole"], &t.RolePrefix)
	if method := p["VaultLoginMethod"]; method == "" || method == "iam" {
		if err := t.login(s); err != nil {
			return nil, err
		}
	} else {
		// The functions' mount is then no AWS auth mount, and none must be made in its place.
		t.LoginMount = t.AuthMount
		t.notice("the functions log in by %s: give its roles the policies %s-…; this command makes roles for VaultLoginMethod=iam only", method, t.RolePrefix)
	}
	if isGiven := t.Given != nil && t.Given("revoke-certificates"); p["RevokeCertificates"] != "" && p["RevokeCertificates"] != "false" && !isGiven {
		t.Revoke = true
		t.line("revoke-certificates", "true", "RevokeCertificates")
	}
	if isGiven := t.Given != nil && t.Given("revoke-stored-certificates"); p["RevokeCertificates"] == "all" && !isGiven {
		t.RevokeStored = true
		t.line("revoke-stored-certificates", "true", "RevokeCertificates")
	}
	if p["VaultNamespace"] != "" {
		t.namespace = p["VaultNamespace"]
	}
	return t, nil
}

// login takes the options for functions that log in with their IAM roles.
func (t *taking) login(s deployed.Stack) error {
	p := s.Parameters
	t.value("login-mount", "VaultLoginMount", p["VaultLoginMount"], &t.LoginMount)
	t.value("server-id", "VaultIAMServerId", p["VaultIAMServerId"], &t.ServerID)
	switch {
	case p["VaultSTSEndpoint"] != "":
		t.notice("the stack has VaultSTSEndpoint %s: write it to sts_endpoint of auth/%s/config/client by hand, and leave --sts-region out", p["VaultSTSEndpoint"], t.LoginMount)
	case p["VaultSTSRegion"] != "":
		t.value("sts-region", "VaultSTSRegion", p["VaultSTSRegion"], &t.STSRegion)
	default:
		t.value("sts-region", "the stack's region", s.Region, &t.STSRegion)
	}
	for _, function := range rights.Functions() {
		if t.FunctionRoles[function] != "" {
			continue
		}
		output := strings.ToUpper(function[:1]) + function[1:] + "FunctionRoleArn"
		role, err := s.Output(output)
		if err != nil {
			return err
		}
		t.FunctionRoles[function] = role
		t.line("function-role", function+"="+role, output)
	}
	return nil
}
