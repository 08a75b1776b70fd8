package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// callTimeout bounds one request to Vault. Generating a CA's key can take seconds.
const callTimeout = 30 * time.Second

// setup applies the wanted state step by step and prints each step.
type setup struct {
	Options
	vault     *api.Logical
	api       *api.Client // for what Logical cannot ask
	namespace string      // of api; empty for the root one
	profiles  *grant.Set
	out       io.Writer
	made      map[string]bool                      // mounts that this run made, or would make in a dry run
	regions   map[string]vault.IdentityCertificate // of --certificate, by region
	looks     vault.Looks                          // repeats reads that may lag behind writes
	seen      int
	changed   int
}

func (s *setup) apply(ctx context.Context) error {
	for function := range s.FunctionRoles {
		if all := rights.Functions(); !slices.Contains(all, function) {
			return fmt.Errorf("--function-role %s: the functions are %s", function, strings.Join(all, ", "))
		}
	}
	if s.Deployment != "" {
		if err := grant.CheckDeployment(s.Deployment); err != nil {
			return fmt.Errorf("--deployment: %w", err)
		}
	}
	if err := s.readCertificates(); err != nil {
		return err
	}
	if err := s.checkNamespace(ctx); err != nil {
		return err
	}
	for _, check := range []func(context.Context) error{s.checkAliases, s.checkOwners, s.checkExternalID, s.checkCertificates} { // before anything is written
		var err error
		s.looks.Until(ctx, func() bool {
			err = check(ctx)
			return err == nil || fault.KindOf(err) == fault.Retry
		})
		if err != nil {
			return s.inNamespace(err)
		}
	}
	for _, step := range []func(context.Context) error{
		s.mounts, s.client, s.identity, s.accounts, s.writeCertificates, s.policies, s.roles, s.roleMounts, s.owners, s.lifetimes, s.survey,
	} {
		if err := step(ctx); err != nil {
			return s.inNamespace(err)
		}
	}
	return nil
}

func (s *setup) mounts(ctx context.Context) error {
	for _, mount := range slices.Compact([]string{s.AuthMount, s.LoginMount}) {
		made, err := s.mount(ctx, "sys/auth", mount, map[string]any{"type": "aws"})
		if err != nil {
			return err
		}
		s.made[grant.AuthMountPath(mount)] = made
	}
	return nil
}

// configuresClient reports whether the run writes config/client.
func (o Options) configuresClient() bool {
	return o.ServerID != "" || o.AWSEndpoint != "" || o.STSRegion != "" || o.AWSKeys
}

// client writes how Vault calls AWS, and which header a login must carry.
func (s *setup) client(ctx context.Context) error {
	if !s.configuresClient() {
		return nil
	}
	fields := map[string]any{}
	if s.ServerID != "" {
		fields["iam_server_id_header_value"] = s.ServerID
	}
	if s.AWSEndpoint != "" {
		fields["endpoint"], fields["iam_endpoint"], fields["sts_endpoint"] = s.AWSEndpoint, s.AWSEndpoint, s.AWSEndpoint
	}
	if s.STSRegion != "" {
		fields["sts_region"] = s.STSRegion
		if s.AWSEndpoint == "" {
			endpoint, err := stsEndpoint(ctx, s.STSRegion)
			if err != nil {
				return err
			}
			fields["sts_endpoint"] = endpoint
		}
	}
	hidden := map[string]any{}
	if s.AWSKeys {
		fields["access_key"] = os.Getenv("AWS_ACCESS_KEY_ID")
		hidden["secret_key"] = os.Getenv("AWS_SECRET_ACCESS_KEY")
		if fields["access_key"] == "" || hidden["secret_key"] == "" {
			return errors.New("--aws-keys: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set")
		}
	}
	for _, mount := range slices.Compact([]string{s.AuthMount, s.LoginMount}) {
		if err := s.write(ctx, grant.AuthConfigPath(mount, "client"), fields, hidden); err != nil {
			return err
		}
	}
	return nil
}

// stsEndpoint returns the region's own STS endpoint by the SDK's rules, which know each partition's domain. Vault checks a
// login at the endpoint and ignores the region, and a signature is valid only at the host that it was made for.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#sts_endpoint
func stsEndpoint(ctx context.Context, region string) (string, error) {
	resolved, err := sts.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, sts.EndpointParameters{Region: &region})
	if err != nil {
		return "", fmt.Errorf("finding the STS endpoint of --sts-region %s: %w", region, err)
	}
	return resolved.URI.String(), nil
}

func (s *setup) policies(ctx context.Context) error {
	texts := functionPolicies(s.profiles, s.Options)
	for _, function := range slices.Sorted(maps.Keys(texts)) {
		path := grant.PolicyPath(s.RolePrefix + "-" + function)
		if err := s.write(ctx, path, map[string]any{"policy": texts[function]}, nil); err != nil {
			return err
		}
	}
	return nil
}

// roles lets each function log in with its IAM role. The tokens are short-lived batch tokens without the default policy,
// whose templated rules would double Vault's work for every request.
func (s *setup) roles(ctx context.Context) error {
	for _, function := range slices.Sorted(maps.Keys(s.FunctionRoles)) {
		name := s.RolePrefix + "-" + function
		if err := s.write(ctx, grant.AuthRolePath(s.LoginMount, name), map[string]any{
			"auth_type":               "iam",
			"bound_iam_principal_arn": []string{s.FunctionRoles[function]},
			"resolve_aws_unique_ids":  s.ResolveUniqueIDs,
			"token_policies":          []string{name},
			"token_no_default_policy": true,
			"token_type":              "batch",
			"token_ttl":               int64(1200),
			"token_max_ttl":           int64(1200),
			// Sent although empty: a role write merges, and a field left out keeps a value that was set by hand.
			// token_bound_cidrs are left out on purpose: they only narrow, and operators may set them.
			"token_explicit_max_ttl":         int64(0),
			"token_period":                   int64(0),
			"token_num_uses":                 int64(0),
			"bound_account_id":               []string{},
			"bound_ec2_instance_id":          []string{},
			"bound_iam_role_arn":             []string{},
			"bound_iam_instance_profile_arn": []string{},
			"bound_region":                   []string{},
			"bound_vpc_id":                   []string{},
			"bound_subnet_id":                []string{},
			"bound_ami_id":                   []string{},
			"inferred_entity_type":           "",
			"inferred_aws_region":            "",
		}, nil); err != nil {
			return s.explain(err, s.FunctionRoles[function])
		}
	}
	return nil
}

// roleMounts makes the missing PKI and SSH mounts of the profiles, each with a CA of its own. It changes neither an existing mount nor a
// CA.
func (s *setup) roleMounts(ctx context.Context) error {
	if !s.PKI {
		return nil
	}
	mounts := s.profiles.Mounts()
	if err := s.mountsWithCA(ctx, mounts.PKI, map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}}, s.root); err != nil {
		return err
	}
	return s.mountsWithCA(ctx, mounts.SSH, map[string]any{"type": "ssh"}, s.hostCA)
}

// mountsWithCA makes the missing ones of some mounts of one engine, and has makeCA make the CA of each.
func (s *setup) mountsWithCA(ctx context.Context, mounts []string, fields map[string]any, makeCA func(ctx context.Context, mount string) error) error {
	if s.Deployment != "" {
		fields["description"] = grant.MountMark(s.Deployment)
	}
	for _, mount := range mounts {
		made, err := s.mount(ctx, "sys/mounts", mount, fields)
		if err != nil {
			return err
		}
		s.made[mount] = made
		if err := makeCA(ctx, mount); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) root(ctx context.Context, mount string) error {
	path := mount + "/issuers"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var issuers *api.Secret
	var err error
	has := func() bool { return issuers != nil && issuers.Data["keys"] != nil }
	// An existing mount may have got its root a moment ago: a second one must not be made.
	s.looks.Until(ctx, func() bool {
		issuers, err = s.vault.ListWithContext(ctx, path)
		return has() || s.awaits(path) || (err == nil && s.made[mount])
	})
	if err != nil && !s.awaits(path) {
		return fmt.Errorf("listing %s: %w", path, err)
	}
	if has() {
		s.report("ok", path, "")
		return nil
	}
	s.report("create", mount+"/root/generate/internal", "no issuer yet")
	if s.DryRun {
		return nil
	}
	_, err = s.vault.WriteWithContext(ctx, mount+"/root/generate/internal", map[string]any{
		"common_name": strings.ReplaceAll(mount, "/", " ") + " CA", "ttl": "87600h", "key_type": "ec", "key_bits": 256,
	})
	if err != nil {
		return fmt.Errorf("making the root of %s: %w", mount, err)
	}
	return nil
}

// mount mounts an engine unless it is mounted, and reports whether it did, or would in a dry run. list is sys/auth or
// sys/mounts. A mount of another type is an error.
func (s *setup) mount(ctx context.Context, list, mount string, fields map[string]any) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	path := list + "/" + mount
	exists, err := s.isMounted(ctx, list, mount, fields["type"])
	if err != nil {
		return false, err
	}
	if exists {
		s.report("ok", path, "")
		return false, nil
	}
	s.report("create", path, fmt.Sprintf("type %v", fields["type"]))
	if s.DryRun {
		return true, nil
	}
	if _, err := s.vault.WriteWithContext(ctx, path, fields); err != nil {
		err = fmt.Errorf("writing %s: %w", path, err)
		// It may have been mounted a moment ago.
		if s.looks.Until(ctx, func() bool { exists, _ := s.isMounted(ctx, list, mount, fields["type"]); return exists }) {
			return false, nil
		}
		return false, err
	}
	return true, nil
}

// isMounted reports whether an engine is mounted. A mount of another type than kind is an error.
func (s *setup) isMounted(ctx context.Context, list, mount string, kind any) (bool, error) {
	mounted, err := s.mounted(ctx, list)
	if err != nil {
		return false, err
	}
	current, exists := mounted[mount]
	if exists && current["type"] != kind {
		return false, fmt.Errorf("%s/%s is of type %v and not %v: choose another mount", list, mount, current["type"], kind)
	}
	return exists, nil
}

// write writes fields and hidden if fields differ from Vault's. Vault never returns hidden fields, so they are not compared.
func (s *setup) write(ctx context.Context, path string, fields, hidden map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var current *api.Secret
	var err error
	s.looks.Until(ctx, func() bool { // a read may not know the mount that this run made a moment ago
		current, err = s.vault.ReadWithContext(ctx, path)
		return err == nil || s.DryRun || !s.isOnNewMount(path)
	})
	if err != nil && !s.awaits(path) {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	verb, why := "create", ""
	if err == nil && current != nil {
		differ := grant.Object{Kind: grant.KindGeneric, Path: path, Fields: fields}.Differences(current.Data)
		if len(differ) == 0 {
			s.report("ok", path, "")
			return nil
		}
		verb, why = "update", strings.Join(differ, ", ")
	}
	s.report(verb, path, why)
	if s.DryRun {
		return nil
	}
	all := maps.Clone(fields)
	maps.Copy(all, hidden)
	answer, err := s.vault.WriteWithContext(ctx, path, all)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if answer == nil || len(answer.Warnings) == 0 {
		return nil
	}
	return s.heed(ctx, path, fields, answer.Warnings)
}

// heed prints Vault's warnings after a write as notices. It returns an error if Vault stored another object than was sent.
func (s *setup) heed(ctx context.Context, path string, fields map[string]any, warnings []string) error {
	altered, advice := vault.SplitWarnings(warnings)
	if len(altered) == 0 {
		var differ []string
		var err error
		s.looks.Until(ctx, func() bool {
			var stored map[string]any
			stored, err = s.read(ctx, path)
			differ = grant.Object{Kind: grant.KindGeneric, Path: path, Fields: fields}.Differences(stored)
			return err == nil && len(differ) == 0
		})
		if err != nil {
			return err
		}
		if len(differ) == 0 {
			s.notice("%s: stored as sent; vault advises: %s", path, strings.Join(advice, "; "))
			return nil
		}
	}
	return fmt.Errorf("writing %s: vault stored other values than were sent: %s", path, strings.Join(warnings, "; "))
}

// awaits reports whether path is on a mount that this dry run would have made, so that a read must fail.
func (s *setup) awaits(path string) bool { return s.DryRun && s.isOnNewMount(path) }

// isOnNewMount reports whether path is on a mount that this run made, or would make in a dry run.
func (s *setup) isOnNewMount(path string) bool {
	for mount, made := range s.made {
		if made && strings.HasPrefix(path, mount+"/") {
			return true
		}
	}
	return false
}

// notice prints a line about something that this command does not change.
func (s *setup) notice(format string, args ...any) {
	fmt.Fprintf(s.out, "notice  %s\n", strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
}

// report prints the line of one step and counts it.
func (s *setup) report(verb, path, why string) {
	s.seen++
	if verb != "ok" {
		s.changed++
	}
	fmt.Fprintf(s.out, "%-7s %s", verb, path)
	if why != "" {
		fmt.Fprintf(s.out, "  (%s)", why)
	}
	fmt.Fprintln(s.out)
}
