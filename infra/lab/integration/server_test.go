package integration

import (
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// serverOf returns the lab's server, by the product's own detection. A test asks it where servers differ; docs/vault-versions.md
// lists the differences.
func serverOf(t *testing.T) vault.Server {
	t.Helper()
	h, err := vault.NewConn(clientOn(t, fleet.Instance{}, ""), "", "").Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h.Server
}

// TestServer_AnswersAsItsVersionSays asks the lab's server for the differences that internal/vault knows by its version.
func TestServer_AnswersAsItsVersionSays(t *testing.T) {
	server := serverOf(t)
	has := func(path, field string) bool {
		t.Helper()
		help, err := world.Vault.HelpWithContext(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		components, _ := help.OpenAPI["components"].(map[string]any)
		schemas, _ := components["schemas"].(map[string]any)
		for _, schema := range schemas {
			of, _ := schema.(map[string]any)
			if properties, _ := of["properties"].(map[string]any); properties[field] != nil {
				return true
			}
		}
		return false
	}
	for _, row := range []struct {
		path, field string
		want        bool
	}{
		{"auth/aws/config/sts/123456789012", "sts_role", true},
		{"auth/aws/config/sts/123456789012", "external_id", server.StoresExternalID()},
		{k8s + "/roles/any", "allowed_domains", true},
		{k8s + "/roles/any", "allowed_ip_sans_cidr", server.LocksAddresses()},
		{k8s + "/roles/any", "not_after_bound", server.LocksAddresses()},
	} {
		if got := has(row.path, row.field); got != row.want {
			t.Errorf("%s: %s has %s: %v, internal/vault says %v", server, row.path, row.field, got, row.want)
		}
	}
	t.Logf("the server is %s (Enterprise: %v)", server, server.Enterprise)
}
