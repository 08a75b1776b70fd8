package integration

import (
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// backdoors makes objects that a stolen function could leave for a later login, under names that its Vault policy reaches and
// that no instance's objects have. It returns their paths.
func backdoors(t *testing.T) []string {
	t.Helper()
	paths := []string{"alice_cluster/pki/k8s/roles/i-door", "auth/" + world.AuthMount + "/role/i-door", "sys/policies/acl/ec2-i-door"}
	vaultSet(t, paths[0], map[string]any{"allow_any_name": true})
	vaultSet(t, paths[1], map[string]any{
		"auth_type": "iam", "bound_iam_principal_arn": "arn:aws:iam::999988887777:user/attacker", "resolve_aws_unique_ids": false, "token_policies": "ec2-i-door",
	})
	vaultSet(t, paths[2], map[string]any{"policy": `path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }`})
	return paths
}

// misnamed returns the paths of the rows without an instance. Each must be a conflicting row without action, with a remedy.
func misnamed(t *testing.T, a rec.Answer) []string {
	t.Helper()
	var out []string
	for _, d := range a.Drift {
		if d.InstanceID != "" {
			continue
		}
		if d.Reason != rec.Conflicting || d.Action != rec.None || !strings.Contains(d.Error, "delete it by hand") {
			t.Errorf("want a conflicting row without action that names the remedy, got %+v", d)
		}
		out = append(out, d.Path)
	}
	return out
}

func TestReconcile_ReportsMisnamedObjects(t *testing.T) {
	paths := backdoors(t)
	f := variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": "mx-central-1"})
	for _, mode := range []rec.Mode{rec.Detect, rec.Correct} {
		a := runReconcile(t, f, rec.Input{Mode: mode, Force: mode == rec.Correct})
		if got := misnamed(t, a); !slices.Equal(got, paths) || a.Summary.Conflicting < len(paths) {
			t.Errorf("%s: want rows for %q, got %q, %+v", mode, paths, got, a.Summary)
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

// TestReconcile_ReportsForgedObjectsOfOurForm makes a backdoor under the name of an instance that does not exist: a login for a user of
// a foreign account, or bound to a place that no run compares, with a policy and a PKI role.
func TestReconcile_ReportsForgedObjectsOfOurForm(t *testing.T) {
	const door = "i-0ddddddddddddddd1"
	p, f := pathsOf(door), variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": "mx-central-1"})
	policy := strings.TrimPrefix(p.policy, "sys/policies/acl/")
	user := map[string]any{
		"auth_type": "iam", "bound_iam_principal_arn": "arn:aws:iam::999988887777:user/attacker", "resolve_aws_unique_ids": false, "token_policies": policy,
	}
	away := map[string]any{
		"auth_type": "ec2", "bound_account_id": "999988887777", "bound_region": "eu-west-1", "bound_iam_instance_profile_arn": "arn:aws:iam::999988887777:instance-profile/*", "token_policies": policy,
	}
	another := map[string]any{
		"auth_type": "ec2", "bound_ec2_instance_id": door, "bound_account_id": "999988887777", "bound_region": "eu-west-1", "token_policies": policy,
	}
	root := `path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }`
	open := map[string]any{"allow_any_name": true}
	for name, row := range map[string]struct {
		role, pki map[string]any
		policy    string
		want      []string
	}{
		"a login for a foreign user":                {role: user, policy: root, pki: open, want: []string{p.role, p.kubelet, p.policy}},
		"a login from a place that is not compared": {role: away, policy: root, pki: open, want: []string{p.role, p.kubelet, p.policy}},
		"the same with a forged marker":             {role: away, policy: marked("lab", door) + root, pki: open, want: []string{p.role, p.kubelet, p.policy}},
		"the login alone":                           {role: away, want: []string{p.role}},
		"a PKI role alone":                          {pki: open, want: []string{p.kubelet}},
		"a policy alone":                            {policy: root, want: []string{p.policy}},
		"another deployment's instance elsewhere":   {role: another, policy: marked("foreign", door), pki: open},
	} {
		t.Run(name, func(t *testing.T) {
			made := map[string]map[string]any{}
			if row.policy != "" {
				made[p.policy] = map[string]any{"policy": row.policy}
			}
			if row.pki != nil {
				made[p.kubelet] = row.pki
			}
			if row.role != nil {
				made[p.role] = row.role
			}
			for path, fields := range made {
				vaultWrite(t, path, fields)
				defer vaultDelete(t, path)
			}
			for _, in := range []rec.Input{{Mode: rec.Detect}, {Mode: rec.Correct, Force: true}, {Mode: rec.Correct, InstanceIDs: []string{door}}} {
				a := runReconcile(t, f, in)
				var got []string
				for _, d := range a.Drift {
					if d.InstanceID != door {
						continue
					}
					got = append(got, d.Path)
					if d.Reason != rec.Conflicting || d.Action != rec.None || d.Error == "" {
						t.Errorf("%+v: want a conflicting row without action, got %+v", in, d)
					}
				}
				slices.Sort(got)
				want := slices.Sorted(slices.Values(row.want))
				if !slices.Equal(got, want) {
					t.Errorf("%+v: want rows for %q, got %q", in, want, got)
				}
			}
			for path := range made {
				if vaultRead(t, path) == nil {
					t.Errorf("%s was removed", path)
				}
			}
		})
	}
}
