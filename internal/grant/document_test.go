package grant_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// documented adds the instance's document to the baseline's policy.
var documented = replace("worker/policy.hcl.tmpl", "{{ pkiAccess", "{{ identityAccess }}\n{{ pkiAccess")

func TestDocument_HasWhatTheInstanceMayAskFor(t *testing.T) {
	policy := policyOf(rendered(t, filesWith(documented), baseline()))
	_, rest, _ := strings.Cut(policy, "\n# identity: ")
	line, rest, _ := strings.Cut(rest, "\n")
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("the line behind \"# identity: \" must be JSON: %v\n%s", err, policy)
	}
	want := map[string]any{
		"instance_id": "i-0123456789abcdef0", "profile": "alice_cluster-worker", "fqdn": "ip-10-1-1-4.ec2.internal", "addresses": []any{"10.1.1.4"},
		"certificates": map[string]any{"kubelet": map[string]any{
			"issue":       "alice_cluster/pki/k8s/issue/i-0123456789abcdef0-kubelet",
			"sign":        "alice_cluster/pki/k8s/sign/i-0123456789abcdef0-kubelet",
			"common_name": "system:node:ip-10-1-1-4.ec2.internal", "alt_names": "ip-10-1-1-4.ec2.internal", "ip_sans": "10.1.1.4",
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the instance asks for what this says\ngot  %v\nwant %v", got, want)
	}
	if own := "path \"sys/policies/acl/ec2-i-0123456789abcdef0-node\" {\n  capabilities = [\"read\"]\n}"; !strings.HasPrefix(rest, own) {
		t.Errorf("the instance must be able to read the policy, and do no more with it: want\n%s\ngot\n%s", own, rest)
	}
}

func TestDocument_IsForPoliciesOnly(t *testing.T) {
	wantFault(t, filesWith(replace("worker/host.json.tmpl", "ca", "{{ identityAccess }}")), "host.json.tmpl", "for policies only")
	wantFault(t, filesWith(replace("worker/profile.yaml", "fqdn: \"", "fqdn: \"{{ identityAccess }}")), "fqdn", "for policies only")
}

func TestDocument_IsNotWrittenByATag(t *testing.T) {
	fs := filesWith(documented, replace("worker/policy.hcl.tmpl", "{{ pkiAccess", "# {{ .Tag \"team\" }}\n{{ pkiAccess"))
	rendered(t, fs, baseline())
	f := baseline()
	f.Tags["team"] = "identity: x"
	if _, err := render(t, fs, f); err == nil || !strings.Contains(err.Error(), "only identityAccess may write") {
		t.Errorf("a tag in a comment must not become the instance's document, got %v", err)
	}
}
