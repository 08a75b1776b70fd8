package integration

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
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

// writesOfGrant returns the writes to Vault for a worker's first grant: one for each of its four objects. Where a PKI role has
// fields that the server's answer to the first write shows, its two PKI roles are written twice.
func writesOfGrant(t *testing.T) int {
	t.Helper()
	if serverOf(t).LocksAddresses() {
		return 6
	}
	return 4
}

// eachElementAllowed reports whether the lab's server lets a list or a comma string through allowed_parameters if each of its
// elements is an allowed value. Otherwise the whole list must be an allowed value.
func eachElementAllowed(t *testing.T) bool {
	t.Helper()
	return !serverOf(t).ComparesWholeLists()
}

// fieldsOf returns the fields of a write to a path, by the server's own description of the path.
func fieldsOf(t *testing.T, path string) map[string]bool {
	t.Helper()
	help, err := world.Vault.HelpWithContext(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]bool{}
	components, _ := help.OpenAPI["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	for _, schema := range schemas {
		of, _ := schema.(map[string]any)
		properties, _ := of["properties"].(map[string]any)
		for name := range properties {
			fields[name] = true
		}
	}
	if len(fields) == 0 {
		t.Fatalf("%s: the server's description lists no fields", path)
	}
	return fields
}

// TestServer_AnswersAsItsVersionSays asks the lab's server for the differences that internal/vault knows by its version.
func TestServer_AnswersAsItsVersionSays(t *testing.T) {
	server := serverOf(t)
	for _, row := range []struct {
		path, field string
		want        bool
	}{
		{"auth/aws/config/sts/123456789012", "external_id", server.StoresExternalID()},
		{k8s + "/roles/any", "allowed_ip_sans_cidr", server.LocksAddresses()},
		{k8s + "/roles/any", "not_after_bound", server.LocksAddresses()},
	} {
		if got := fieldsOf(t, row.path)[row.field]; got != row.want {
			t.Errorf("%s: %s has %s: %v, internal/vault says %v", server, row.path, row.field, got, row.want)
		}
	}
	t.Logf("the server is %s (Enterprise: %v)", server, server.Enterprise)
}

// TestServer_KnowsEveryFieldSent compares the fields that the functions and the set-up send with those of the server. It drops a
// field that it does not know: without a warning where it answers a write with nothing, as for an auth role.
func TestServer_KnowsEveryFieldSent(t *testing.T) {
	sent := map[string][]string{
		"auth/aws/config/identity": {"ec2_alias", "iam_alias", "ec2_metadata", "iam_metadata"},
		"auth/aws/config/client":   {"iam_server_id_header_value", "endpoint", "iam_endpoint", "sts_endpoint", "sts_region", "access_key", "secret_key"},
		"sys/mounts/any/tune":      {"description"},
	}
	resetTaps()
	i := provisioned(t)
	for _, c := range world.Taps.Vault.Calls() {
		path, isWrite := strings.CutPrefix(c.Action, "PUT ")
		if !isWrite || !strings.Contains(path, i.ID) {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal(c.Body, &fields); err != nil {
			t.Fatalf("%s: %v", c.Action, err)
		}
		sent[path] = slices.Sorted(maps.Keys(fields))
	}
	for _, path := range []string{pathsOf(i.ID).policy, pathsOf(i.ID).role, k8s + "/roles/" + i.ID + "-kubelet"} {
		if len(sent[path]) == 0 {
			t.Errorf("no write to %s was seen, only to %q", path, slices.Sorted(maps.Keys(sent)))
		}
	}
	for path, fields := range sent {
		known := fieldsOf(t, path)
		for _, f := range fields {
			if !known[f] {
				t.Errorf("%s drops %s of %s, so it would hold another object than was sent", serverOf(t), f, path)
			}
		}
	}
}
