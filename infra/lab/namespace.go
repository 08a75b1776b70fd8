package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// ErrNoNamespaces says that the server has no namespaces.
var ErrNoNamespaces = errors.New("the server has no namespaces")

// rootClient returns a client with the root token in the world's namespace.
func (w *World) rootClient() (*vaultapi.Client, error) {
	client, err := fleet.VaultClient(w.VaultAddr, w.VaultCAPEM, w.VaultToken)
	if err == nil && w.VaultNamespace != "" {
		client.SetNamespace(w.VaultNamespace)
	}
	return client, err
}

// makeNamespace makes the world's namespace and those above it, as an operator does.
// https://developer.hashicorp.com/vault/api-docs/system/namespaces
func (w *World) makeNamespace(ctx context.Context) error {
	if w.VaultNamespace == "" {
		return nil
	}
	above := ""
	for name := range strings.SplitSeq(w.VaultNamespace, "/") {
		_, err := w.Vault.WithNamespace(above).Logical().WriteWithContext(ctx, "sys/namespaces/"+name, nil)
		var refused *vaultapi.ResponseError
		if errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound {
			return fmt.Errorf("%w: %w", ErrNoNamespaces, err)
		}
		if err != nil {
			return fmt.Errorf("making the namespace %s below %q: %w", name, above, err)
		}
		above = strings.TrimPrefix(above+"/"+name, "/")
	}
	return nil
}
