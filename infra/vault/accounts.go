package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// externalID is the field of config/sts with the external ID that Vault sends when it assumes a role.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#create-sts-role
const externalID = "external_id"

func (s *setup) accountPath(account string) string {
	return grant.AuthConfigPath(s.authMount, "sts/"+account)
}

// accounts writes the role that Vault assumes in each other account.
func (s *setup) accounts(ctx context.Context) error {
	if s.made[grant.AuthMountPath(s.authMount)] && !s.dryRun { // a mount could not be asked before it was made
		if err := s.checkExternalID(ctx); err != nil {
			return err
		}
	}
	for _, account := range slices.Sorted(maps.Keys(s.stsRoles)) {
		fields := map[string]any{"sts_role": s.stsRoles[account]}
		if s.stsExternalID != "" {
			fields[externalID] = s.stsExternalID
		}
		if err := s.write(ctx, s.accountPath(account), fields, nil); err != nil {
			return err
		}
	}
	return nil
}

// checkExternalID returns an error if Vault would drop the external ID of an account's role. It drops it without a warning, and
// then no instance of an account whose role requires it can log in. A mount that does not exist is not checked.
func (s *setup) checkExternalID(ctx context.Context) error {
	if s.stsExternalID == "" || len(s.stsRoles) == 0 {
		return nil
	}
	there, err := s.mounted(ctx, "sys/auth")
	if err != nil || there[s.authMount] == nil {
		return err
	}
	path := s.accountPath(slices.Min(slices.Collect(maps.Keys(s.stsRoles))))
	known, err := s.knowsField(ctx, path, externalID)
	if err != nil || known {
		return err
	}
	return fmt.Errorf("%s: the AWS auth method of %s does not know %s, so -sts-external-id cannot be stored, and no instance of an account whose role requires it could log in. "+
		"No account was written. Use a server that knows the field (Vault 1.17 or later); or deploy infra/member-account with VaultExternalId=none and run without -sts-external-id",
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
