package bootstrap

import (
	"errors"
	"maps"
	"net/http"
	"testing"

	vaultapi "github.com/hashicorp/vault/api"
)

// authRole returns an instance's auth role as the provision function writes it, with numbers as strings of digits.
func authRole(more map[string]any) map[string]any {
	fields := map[string]any{
		"auth_type": "ec2", "bound_ec2_instance_id": []string{"i-0123456789abcdef0"}, "bound_account_id": []string{"123456789012"},
		"bound_vpc_id": []string{"vpc-1"}, "bound_iam_instance_profile_arn": []string{"arn:aws:iam::123456789012:instance-profile/node"},
		"bound_iam_role_arn": []string{}, "bound_iam_principal_arn": []string{}, "bound_ami_id": []string{}, "bound_subnet_id": []string{},
		"bound_region": []string{"us-east-1"}, "resolve_aws_unique_ids": false,
		"token_policies": []string{"ec2-i-0123456789abcdef0-node"}, "token_ttl": "3600", "token_max_ttl": "86400",
		"token_explicit_max_ttl": "0", "token_period": "0", "token_num_uses": "0", "token_type": "default",
		"token_bound_cidrs": []string{"10.1.1.4"}, "token_no_default_policy": true,
		"inferred_entity_type": "", "inferred_aws_region": "", "role_tag": "", "allow_instance_migration": false, "disallow_reauthentication": false,
	}
	if more["auth_type"] == "iam" {
		for _, name := range []string{"role_tag", "allow_instance_migration", "disallow_reauthentication"} { // Vault refuses these for iam
			delete(fields, name)
		}
	}
	maps.Copy(fields, more)
	return fields
}

// With a stolen token of a function, an attacker can write only auth roles of the program's form: no endless tokens and no
// other kind of login.
func TestAuthRole_AcceptsOnlyOurParameters(t *testing.T) {
	w := start(t)
	if out, err := w.run(t, w.token, "-templates-dir", profiles(t), "-resolve-unique-ids=false"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const path = "auth/aws/role/i-0123456789abcdef0"
	iam := map[string]any{
		"auth_type": "iam", "inferred_entity_type": "ec2_instance", "inferred_aws_region": "us-east-1", "bound_region": []string{},
		"bound_iam_principal_arn": []string{"arn:aws:iam::123456789012:role/node"},
	}
	for _, function := range []string{"provision", "reconcile"} {
		as := w.as(t, "ec2-provisioner-"+function)
		for name, fields := range map[string]map[string]any{"ec2": {}, "iam": iam} {
			for _, verb := range []string{"create", "update"} {
				if answer, err := as.Logical().WriteWithContext(t.Context(), path, authRole(fields)); err != nil || answer != nil && len(answer.Warnings) > 0 {
					t.Errorf("%s: want the role of kind %s written (%s): %v, %+v", function, name, verb, err, answer)
				}
			}
			if _, err := w.vault.Logical().DeleteWithContext(t.Context(), path); err != nil {
				t.Fatal(err)
			}
		}
		for name, fields := range map[string]map[string]any{
			"tokens without an end":                      {"token_period": "3600"},
			"tokens without an end, as a number":         {"token_period": 3600},
			"tokens without an end, in another spelling": {"token_period": "1h"},
			"tokens without an end, by the old name":     {"period": "3600"},
			"policies by the old name":                   {"policies": "root"},
			"an unknown parameter":                       {"door": "open"},
			"another kind of login":                      {"auth_type": "ldap"},
			"a principal of any kind":                    {"inferred_entity_type": "user"},
			"a role tag, which its holder writes":        {"role_tag": "VaultRole"},
			"migration to another instance":              {"allow_instance_migration": true},
			"one login for ever":                         {"disallow_reauthentication": true},
			"batch tokens, which no removal cuts":        {"token_type": "batch"},
			"the default policy":                         {"token_no_default_policy": false},
			"a limit on the uses":                        {"token_num_uses": "1"},
			"a longest life beyond the mount's":          {"token_explicit_max_ttl": "999999"},
		} {
			_, err := as.Logical().WriteWithContext(t.Context(), path, authRole(fields))
			var answer *vaultapi.ResponseError
			if !errors.As(err, &answer) || answer.StatusCode != http.StatusForbidden {
				t.Errorf("%s: %s: want 403, got %v", function, name, err)
			}
		}
	}
	if role, err := w.vault.Logical().ReadWithContext(t.Context(), path); err != nil || role != nil {
		t.Errorf("a refused write left a role: %v, %v", role, err)
	}
}

// as returns a client with a token that has only this policy.
func (w *world) as(t *testing.T, policy string) *vaultapi.Client {
	t.Helper()
	token, err := w.vault.Logical().WriteWithContext(t.Context(), "auth/token/create", map[string]any{"policies": []string{policy}, "no_default_policy": true})
	if err != nil {
		t.Fatal(err)
	}
	client, err := w.vault.Clone()
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(token.Auth.ClientToken)
	return client
}
