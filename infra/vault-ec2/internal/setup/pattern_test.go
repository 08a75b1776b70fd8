package setup

import (
	"slices"
	"testing"
)

func TestPattern_OverlapsReachablePaths(t *testing.T) {
	for _, row := range []struct {
		rule, ours string
		want       bool
	}{
		{"*", "auth/aws/role/i-*", true},
		{"auth/*", "auth/aws/role/i-*", true},
		{"auth/+/role/*", "auth/aws/role/i-*", true},
		{"auth/+/+/+", "auth/aws/role/i-*", true},
		{"auth/aws/role/i-0123456789abcdef0", "auth/aws/role/i-*", true},
		{"auth/aws/role/i-0*", "auth/aws/role/i-*", true},
		{"/auth/aws/role/i-door", "auth/aws/role/i-*", true},
		{"auth/aws/role/{{identity.entity.name}}", "auth/aws/role/i-*", true},
		{"auth/aws/role/x{{identity.entity.name}}", "auth/aws/role/i-*", false},
		{"auth/aws/role", "auth/aws/role/i-*", false},
		{"auth/aws/role/operator", "auth/aws/role/i-*", false},
		{"auth/aws/rol+/i-1", "auth/aws/role/i-*", false},
		{"auth/+/role", "auth/aws/role/i-*", false},
		{"auth/aws-old/*", "auth/aws/role/i-*", false},
		{"sys/policies/acl/ec2-provisioner-provision", "sys/policies/acl/ec2-i-*", false},
		{"sys/policies/+/ec2*", "sys/policies/acl/ec2-i-*", true},
		{"+/pki/k8s/issue/web", "alice/pki/k8s/issue/*", true},
		{"+/k8s/issue/web", "alice/pki/k8s/issue/*", false},
		{"alice/pki/k8s/issuer/default/issue/web", "alice/pki/k8s/issuer/+/issue/*", true},
		{"alice/pki/k8s/+/+/issue/*", "alice/pki/k8s/issuer/+/issue/*", true},
		{"alice/pki/k8s/issuer/default", "alice/pki/k8s/issuer/+/issue/*", false},
		{"alice/pki/+", "alice/pki/k8s/issue/*", false},
	} {
		if got := parsePattern(row.rule).meets(parsePattern(row.ours)); got != row.want {
			t.Errorf("%s and %s: got %v, want %v", row.rule, row.ours, got, row.want)
		}
		if got := parsePattern(row.ours).meets(parsePattern(row.rule)); got != row.want {
			t.Errorf("%s and %s: got %v, want %v", row.ours, row.rule, got, row.want)
		}
	}
}

func TestParseRules_ReadsEachPolicyForm(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want []string
	}{
		"HCL":                {`path "a/*" { capabilities = ["update"] }`, []string{"a/*", "update"}},
		"JSON":               {`{"path": {"a/*": {"capabilities": ["update"]}}}`, []string{"a/*", "update"}},
		"the old form":       {`path "a/*" { policy = "read" }`, []string{"a/*", "read", "list"}},
		"more than is known": {"name = \"x\"\npath \"a/*\" {\n  capabilities = [\"update\"]\n  mfa_methods = [\"m\"]\n}", []string{"a/*", "update"}},
		"two of one path":    {"path \"a\" { capabilities = [\"read\"] }\npath \"a\" { capabilities = [\"update\"] }", []string{"a", "read", "a", "update"}},
		"nothing":            {"", nil},
	} {
		rules, err := parseRules(row.text)
		var got []string
		for _, r := range rules {
			got = append(append(got, r.path), r.capabilities...)
		}
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, row.want)
		}
	}
	if _, err := parseRules(`path "a" {`); err == nil {
		t.Error("a text that is no policy must be an error")
	}
}
