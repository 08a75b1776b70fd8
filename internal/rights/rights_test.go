package rights_test

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

// scope returns the baseline: one profile with PKI roles and a generic object.
func scope(t *testing.T) rights.Scope {
	t.Helper()
	set, err := grant.Load(fstest.MapFS{
		"worker/profile.yaml": {Data: []byte(`name: alice-worker
match: {iam_role_arn: "arn:aws:iam::*:role/worker"}
base_path: alice
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: node, type: policy, template: policy.hcl.tmpl}
  - {name: kubelet, type: pki-role, path: pki/k8s/roles, template: role.json.tmpl}
  - {name: proxy, type: pki-role, path: pki/k8s/roles, template: role.json.tmpl}
  - {name: host, type: generic, path: ssh/roles, template: role.json.tmpl}
  - {name: sshd, type: ssh-role, path: hosts/roles, template: role.json.tmpl}
`)},
		"worker/policy.hcl.tmpl": {Data: []byte(`{{ pkiAccess "kubelet" }}`)},
		"worker/role.json.tmpl":  {Data: []byte(`{"max_ttl": "24h"}`)},
	})
	if err != nil {
		t.Fatalf("the profile must load: %v", err)
	}
	return rights.Scope{Profiles: set, AuthMount: "aws"}
}

// lines returns rights in the form "path: capability capability".
func lines(list []rights.Right) []string {
	var out []string
	for _, r := range list {
		out = append(out, r.Path+": "+strings.Join(r.Capabilities, " "))
	}
	return out
}

func TestRights_OfEachFunctionAreExact(t *testing.T) {
	want := map[string][]string{
		rights.Provision: {
			"alice/hosts/roles: list",
			"alice/hosts/roles/i-*: create read update delete",
			"alice/pki/k8s/roles: list",
			"alice/pki/k8s/roles/i-*: create read update delete",
			"alice/ssh/roles/i-*: create read update delete",
			"auth/aws/role: list",
			"auth/aws/role/i-*: create read update",
			"sys/policies/acl: list",
			"sys/policies/acl/ec2-i-*: create read update delete",
		},
		rights.Deprovision: {
			"alice/hosts/roles/i-*: delete",
			"alice/pki/k8s/roles/i-*: delete",
			"alice/ssh/roles/i-*: delete",
			"auth/aws/config/identity: read",
			"auth/aws/identity-accesslist/i-*: read delete",
			"auth/aws/role/i-*: read delete",
			"identity/entity/id/*: delete",
			"identity/lookup/entity: update",
			"sys/policies/acl/ec2-i-*: read delete",
		},
		rights.Reconcile: {
			"alice/hosts/config/ca: read",
			"alice/hosts/roles: list",
			"alice/hosts/roles/i-*: create read update delete",
			"alice/pki/k8s/config/acme: read",
			"alice/pki/k8s/roles: list",
			"alice/pki/k8s/roles/i-*: create read update delete",
			"alice/ssh/roles: list",
			"alice/ssh/roles/i-*: create read update delete",
			"auth/aws/config/certificate/*: read",
			"auth/aws/config/certificates: list",
			"auth/aws/config/identity: read",
			"auth/aws/config/sts: list",
			"auth/aws/identity-accesslist: list",
			"auth/aws/identity-accesslist/i-*: read delete",
			"auth/aws/role: list",
			"auth/aws/role/i-*: create read update delete",
			"identity/entity-alias/id: list",
			"identity/entity/id/*: delete",
			"identity/lookup/entity: update",
			"sys/capabilities-self: update",
			"sys/policies/acl: list",
			"sys/policies/acl/ec2-i-*: create read update delete",
		},
	}
	got := rights.ByFunction(scope(t))
	for _, function := range rights.Functions() {
		if !slices.Equal(lines(got[function]), want[function]) {
			t.Errorf("%s: one right more is an attack path, one right less an outage:\n got %q\nwant %q", function, lines(got[function]), want[function])
		}
	}
	if len(got) != len(rights.Functions()) {
		t.Errorf("want the rights of %q, got %d functions", rights.Functions(), len(got))
	}
}

func TestRights_OptionAddsOnlyItsOwn(t *testing.T) {
	aliasesAndRoles := []string{"auth/aws-old/config/identity: read", "auth/aws-old/identity-accesslist/i-*: read delete", "auth/aws-old/role/i-*: read delete"}
	revocations := []string{
		"sys/leases/revoke-prefix/alice/pki/k8s/issue/i-*: update sudo", "sys/leases/revoke-prefix/alice/pki/k8s/sign/i-*: update sudo",
		"sys/leases/revoke-prefix/alice/ssh/issue/i-*: update sudo", "sys/leases/revoke-prefix/alice/ssh/sign/i-*: update sudo",
	}
	for name, row := range map[string]struct {
		change func(*rights.Scope)
		want   map[string][]string
	}{
		"an output folder that no profile names any more": {
			func(s *rights.Scope) { s.AlsoPaths = []string{"old/pki/roles", "alice/ssh/roles"} },
			map[string][]string{
				rights.Provision:   {"old/pki/roles/i-*: create read update delete"},
				rights.Deprovision: {"old/pki/roles/i-*: delete"},
				rights.Reconcile:   {"old/pki/roles: list", "old/pki/roles/i-*: create read update delete"},
			},
		},
		"a mount that instances still have roles on": {
			func(s *rights.Scope) { s.AlsoMounts = []string{"aws-old", "aws"} },
			map[string][]string{rights.Deprovision: aliasesAndRoles, rights.Reconcile: aliasesAndRoles},
		},
		"revoking certificates on each mount that can be a PKI mount": {
			func(s *rights.Scope) { s.Revoke = true },
			map[string][]string{rights.Deprovision: revocations, rights.Reconcile: revocations},
		},
		"revoking stored certificates": {
			func(s *rights.Scope) { s.RevokeStored = true },
			map[string][]string{
				rights.Deprovision: {"alice/pki/k8s/revoke: update"},
				rights.Reconcile:   {"alice/pki/k8s/certs: list", "alice/pki/k8s/config/auto-tidy: read", "alice/pki/k8s/config/crl: read", "alice/pki/k8s/revoke: update"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := scope(t)
			without := rights.ByFunction(s)
			row.change(&s)
			with := rights.ByFunction(s)
			for _, function := range rights.Functions() {
				before := lines(without[function])
				added := slices.DeleteFunc(lines(with[function]), func(l string) bool { return slices.Contains(before, l) })
				if !slices.Equal(added, row.want[function]) {
					t.Errorf("%s: added %q, want %q", function, added, row.want[function])
				}
				if len(with[function]) != len(before)+len(added) {
					t.Errorf("%s: the option changed an existing right: before %q, after %q", function, before, lines(with[function]))
				}
			}
		})
	}
}

func TestPolicy_HoldsExactlyItsRights(t *testing.T) {
	for function, list := range rights.ByFunction(scope(t)) {
		var policy struct {
			Path map[string]struct {
				Capabilities []string
				Allowed      map[string][]any `hcl:"allowed_parameters"`
			}
		}
		if err := hcl.Decode(&policy, rights.Policy(list)); err != nil {
			t.Fatalf("%s: the text is not a policy: %v", function, err)
		}
		if len(policy.Path) != len(list) {
			t.Errorf("%s: %d rights have %d paths", function, len(list), len(policy.Path))
		}
		for _, r := range list {
			got := policy.Path[r.Path]
			same := maps.EqualFunc(got.Allowed, r.Allowed, slices.Equal[[]any])
			if !slices.Equal(got.Capabilities, r.Capabilities) || !same {
				t.Errorf("%s: %s: got %q with %v, want %q with %v", function, r.Path, got.Capabilities, got.Allowed, r.Capabilities, r.Allowed)
			}
		}
	}
}

// Only writes of auth roles are bounded. Their list is closed: * in it would allow any parameter.
func TestRights_BoundAuthRoleParameters(t *testing.T) {
	for function, list := range rights.ByFunction(scope(t)) {
		for _, r := range list {
			writes := slices.Contains(r.Capabilities, "update") && r.Path == "auth/aws/role/i-*"
			if _, open := r.Allowed["*"]; open || writes != (len(r.Allowed) > 0) {
				t.Errorf("%s: %s: want a closed list of parameters: %v, got %v", function, r.Path, writes, r.Allowed)
			}
		}
	}
}

// Vault refuses a grant whose auth role has a field or a value that is not on the list.
func TestRights_AllowEachAuthRoleField(t *testing.T) {
	allowed := map[string][]any{}
	for _, r := range rights.ByFunction(scope(t))[rights.Provision] {
		if r.Path == "auth/aws/role/i-*" {
			allowed = r.Allowed
		}
	}
	instance := facts.Instance{
		ID: "i-0123456789abcdef0", Account: "123456789012", Region: "us-east-1", VPCID: "vpc-0123456789abcdef0",
		PrivateDNSName: "ip-10-1-1-4.ec2.internal", IPv4s: []netip.Addr{netip.MustParseAddr("10.1.1.4")}, IAMRoleARN: "arn:aws:iam::123456789012:role/worker",
		IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/worker",
	}
	used := map[string]bool{}
	for _, kind := range []string{"ec2", "iam"} {
		profile := *scope(t).Profiles.Profiles[0]
		profile.Auth.Type = kind
		granted, err := profile.Render(instance, grant.Realm{AuthMount: "aws", Deployment: "d"})
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range granted.AuthRole.Fields {
			used[name] = true
			if number, is := value.(int64); is {
				value = strconv.FormatInt(number, 10) // as internal/vault writes it
			}
			values, is := allowed[name]
			if !is || (len(values) > 0 && !slices.Contains(values, value)) {
				t.Errorf("%s: the role has %s: %#v, allowed %v (listed: %v)", kind, name, value, values, is)
			}
		}
	}
	for name := range allowed {
		if !used[name] {
			t.Errorf("%s is allowed, and no auth role has it", name)
		}
	}
}

func TestRight_ExampleIsACoveredPath(t *testing.T) {
	for path, want := range map[string]string{
		"sys/policies/acl":         "sys/policies/acl",
		"sys/policies/acl/ec2-i-*": "sys/policies/acl/ec2-i-00000000000000000",
		"auth/aws/role/i-*":        "auth/aws/role/i-00000000000000000",
		"identity/entity/id/*":     "identity/entity/id/00000000-0000-0000-0000-000000000000",
	} {
		if got := (rights.Right{Path: path}).Example(); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
