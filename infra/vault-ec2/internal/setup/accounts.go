package setup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// externalID is the field of config/sts with the external ID that Vault sends when it assumes a role.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#create-sts-role
const externalID = "external_id"

// accountPath returns the path of the role that Vault assumes in an account for logins on an auth mount.
func accountPath(mount, account string) string { return grant.AuthConfigPath(mount, "sts/"+account) }

// accountMounts returns the auth mounts that need the role in an account: the instances', and the functions' if a function's IAM role
// is in the account, since Vault asks for its unique ID there.
func (o Options) accountMounts(account string) []string {
	mounts := []string{o.AuthMount}
	hasFunction := false
	for _, arn := range o.FunctionRoles {
		fields := strings.Split(arn, ":")
		hasFunction = hasFunction || (len(fields) > 4 && fields[4] == account)
	}
	if hasFunction && o.LoginMount != o.AuthMount {
		mounts = append(mounts, o.LoginMount)
	}
	return mounts
}

// accounts writes the role that Vault assumes in each account. The stack's own account needs one only if Vault runs in another.
func (s *setup) accounts(ctx context.Context) error {
	if s.made[grant.AuthMountPath(s.AuthMount)] && !s.DryRun { // a mount could not be asked before it was made
		if err := s.checkExternalID(ctx); err != nil {
			return err
		}
	}
	for _, account := range slices.Sorted(maps.Keys(s.STSRoles)) {
		fields := map[string]any{"sts_role": s.STSRoles[account]}
		if s.STSExternalID != "" {
			fields[externalID] = s.STSExternalID
		}
		for _, mount := range s.accountMounts(account) {
			if err := s.write(ctx, accountPath(mount, account), fields, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkExternalID returns an error if Vault would drop the external ID of an account's role. It drops it without a warning, and
// then no instance of an account whose role requires it can log in. A mount that does not exist is not checked.
func (s *setup) checkExternalID(ctx context.Context) error {
	if s.STSExternalID == "" || len(s.STSRoles) == 0 {
		return nil
	}
	there, err := s.mounted(ctx, "sys/auth")
	if err != nil || there[s.AuthMount] == nil {
		return err
	}
	path := accountPath(s.AuthMount, slices.Min(slices.Collect(maps.Keys(s.STSRoles))))
	known, err := s.knowsField(ctx, path, externalID)
	if err != nil || known {
		return err
	}
	return fmt.Errorf("%s: the AWS auth method of %s does not know %s, so --sts-external-id cannot be stored, and no instance of an account whose role requires it could log in. "+
		"No account was written. Use a server that knows the field (Vault 1.17 or later); or deploy infra/member-account with VaultExternalId=none and run without --sts-external-id",
		path, s.server(ctx), externalID)
}

// knowsField reports whether a write to path has a field, by the server's own description of the path. Every token may read
// that description. An auth method can be a plugin with versions of its own, so the server's version does not decide.
// https://developer.hashicorp.com/vault/docs/commands/path-help
func (s *setup) knowsField(ctx context.Context, path, field string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	help, err := s.api.HelpWithContext(ctx, path)
	if err != nil {
		return false, fmt.Errorf("reading the description of %s: %w", path, err)
	}
	components, _ := help.OpenAPI["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	if len(schemas) == 0 {
		return false, fmt.Errorf("reading the description of %s: it lists no fields, so it does not say whether %s would be stored", path, field)
	}
	for _, schema := range schemas {
		of, _ := schema.(map[string]any)
		properties, _ := of["properties"].(map[string]any)
		if properties[field] != nil {
			return true, nil
		}
	}
	return false, nil
}

// server returns the server's product and version for an error's text.
func (s *setup) server(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := s.anonymous()
	if err != nil {
		return "this server"
	}
	h, err := conn.Health(ctx)
	if err != nil {
		return "this server"
	}
	return h.Server.String()
}

// anonymous returns a connection to the server without token and namespace.
func (s *setup) anonymous() (*vault.Conn, error) {
	other, err := s.api.Clone() // NewConn changes the client
	if err != nil {
		return nil, fmt.Errorf("making the Vault client: %w", err)
	}
	return vault.NewConn(other, "", ""), nil
}

// explain adds the next step to the error of binding a function's IAM role whose account Vault cannot ask.
// https://github.com/hashicorp/vault/blob/v1.21.4/builtin/credential/aws/client.go
func (s *setup) explain(err error, arn string) error {
	fields := strings.Split(arn, ":")
	isElsewhere := strings.Contains(err.Error(), "unable to fetch client for account ID") || strings.Contains(err.Error(), "no STS configuration found for account ID")
	if !isElsewhere || len(fields) < 5 {
		return err
	}
	return fmt.Errorf("%w. Vault runs in another AWS account than the functions: run again with --sts-role %s=<a role there that Vault may assume, with iam:GetRole on %s>; "+
		"infra/member-account makes one (docs/accounts.md)", err, fields[4], arn)
}
