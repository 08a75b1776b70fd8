package setup

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

const namespaceEnv = "VAULT_NAMESPACE"

// newClient returns a client by the environment, and its namespace, which is empty for the root one. Where the environment has no
// VAULT_NAMESPACE, also no empty one, it is the stack's.
func newClient(ofStack string) (*api.Client, string, error) {
	client, err := api.NewClient(nil)
	if err != nil {
		return nil, "", fmt.Errorf("making the Vault client: %w", err)
	}
	client.SetCloneHeaders(true)
	client.AddHeader("User-Agent", version.UserAgent("vault-ec2"))
	wanted := client.Namespace()
	if _, isSet := os.LookupEnv(namespaceEnv); !isSet {
		wanted = ofStack
	}
	namespace, err := grant.ParseNamespace(wanted)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("%s: %w", namespaceEnv, err)
	case namespace == "":
		client.ClearNamespace()
	default:
		client.SetNamespace(namespace)
	}
	return client, namespace, nil
}

// checkNamespace prints the namespace, or returns an error if the server would not act in it.
func (s *setup) checkNamespace(ctx context.Context) error {
	if s.namespace == "" {
		return nil
	}
	conn, err := s.anonymous()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = conn.CheckNamespace(limited, s.namespace)
	switch {
	case errors.Is(err, vault.ErrNamespacesIgnored):
		return fmt.Errorf("%s: %w. Nothing was written. Unset %s here and VaultNamespace in the stack, or point VAULT_ADDR at a server with namespaces (Vault Enterprise, HCP Vault, OpenBao)", s.server(ctx), err, namespaceEnv)
	case errors.Is(err, vault.ErrNoNamespace):
		return fmt.Errorf("%s: %w. Nothing was written. Create it first (vault namespace create), or correct %s", s.server(ctx), err, namespaceEnv)
	case err != nil:
		return err
	}
	fmt.Fprintf(s.out, "namespace %s: all paths are relative to it\n", s.namespace)
	return nil
}

// inNamespace adds the namespace to an error, since Vault's answers do not name it: a missing namespace, or a token of another
// one, can look like a missing right.
func (s *setup) inNamespace(err error) error {
	if s.namespace == "" {
		return err
	}
	return fmt.Errorf("in the namespace %s: %w", s.namespace, err)
}
