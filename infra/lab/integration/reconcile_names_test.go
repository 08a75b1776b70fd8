package integration

import (
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// doors makes what a function that was taken over could leave to come back by, under names that its Vault policy reaches
// and that no instance's objects have.
func doors(t *testing.T) []string {
	t.Helper()
	paths := []string{"alice_cluster/pki/k8s/roles/i-door", "auth/" + world.AuthMount + "/role/i-door", "sys/policies/acl/ec2-i-door"}
	vaultWrite(t, paths[0], map[string]any{"allow_any_name": true})
	vaultWrite(t, paths[1], map[string]any{
		"auth_type": "iam", "bound_iam_principal_arn": "arn:aws:iam::999988887777:user/somebody", "resolve_aws_unique_ids": false, "token_policies": "ec2-i-door",
	})
	vaultWrite(t, paths[2], map[string]any{"policy": `path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }`})
	t.Cleanup(func() {
		for _, path := range paths {
			if _, err := world.Vault.Logical().Delete(path); err != nil {
				t.Error(err)
			}
		}
	})
	return paths
}

// misnamed are the paths of the rows without an instance; it fails the test for one that says something else.
func misnamed(t *testing.T, a rec.Answer) []string {
	t.Helper()
	var out []string
	for _, d := range a.Drift {
		if d.InstanceID != "" {
			continue
		}
		if d.Reason != rec.Conflicting || d.Action != rec.None || !strings.Contains(d.Error, "delete it by hand") {
			t.Errorf("want a conflicting row without action that says what to do, got %+v", d)
		}
		out = append(out, d.Path)
	}
	return out
}

func TestReconcile_NamesWhatIsMisnamed(t *testing.T) {
	paths := doors(t)
	f := variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": "mx-central-1"})
	for _, mode := range []rec.Mode{rec.Detect, rec.Correct} {
		a := runReconcile(t, f, rec.Input{Mode: mode, Force: mode == rec.Correct})
		if got := misnamed(t, a); !slices.Equal(got, paths) || a.Summary.Conflicting < len(paths) {
			t.Errorf("%s: want %q told, got %q, %+v", mode, paths, got, a.Summary)
		}
	}
	for _, path := range paths {
		if vaultRead(t, path) == nil {
			t.Errorf("%s was removed", path)
		}
		logged(t, f, path)
	}
	logged(t, f, `"`+observe.DriftConflict+`":`)
}
