package grant_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// withURIs adds fields to the baseline's PKI role.
func withURIs(fields string) func(fstest.MapFS) {
	return replace("worker/profile.yaml", "template: kubelet.json.tmpl", fields+", template: kubelet.json.tmpl")
}

func TestURI_IsLockedInRoleAndPolicy(t *testing.T) {
	const own, shared = "spiffe://alice/123456789012/i-0123456789abcdef0", "spiffe://alice/us-east-1/worker"
	fs := filesWith(documented, withURIs(`uri_sans: ["spiffe://alice/{{ .AccountID }}/{{ .InstanceID }}"], shared_uri_sans: ["spiffe://alice/{{ .Region }}/worker"]`))
	g := rendered(t, fs, baseline())
	if got := g.Objects[1].Fields["allowed_uri_sans"]; !reflect.DeepEqual(got, []string{own, shared}) {
		t.Errorf("want the role to allow exactly these URIs, got %v", got)
	}
	policy := policyOf(g)
	forms := `"uri_sans" = ["` + own + `", "` + shared + `", "` + own + "," + shared + `", ["` + own + `"], ["` + shared + `"], ["` + own + `", "` + shared + `"]]`
	if strings.Count(policy, forms) != 2 {
		t.Errorf("want %s for issue and sign, got\n%s", forms, policy)
	}
	if document := `"uri_sans":"` + own + "," + shared + `"`; strings.Count(policy, document) != 1 {
		t.Errorf("want %s in the instance's document, got\n%s", document, policy)
	}
	claim := grant.Claim{Under: "alice_cluster/pki/k8s", Text: own}
	others := func(c grant.Claim) bool { return c != claim && strings.Contains(c.Text, "://") }
	if !slices.Contains(g.Claims, claim) || slices.ContainsFunc(g.Claims, others) {
		t.Errorf("want its own URI claimed and the shared one not, got %v", g.Claims)
	}

	without := rendered(t, filesWith(documented, replace("worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`, ""), withURIs(`shared_uri_sans: [spiffe://alice/worker]`)), baseline())
	if got := without.Objects[1].Fields["allowed_uri_sans"]; !reflect.DeepEqual(got, []string{}) {
		t.Errorf("want no shared URI in a role that no policy reaches, got %v", got)
	}
	if text := policyOf(rendered(t, files(), baseline())); strings.Contains(text, "uri_sans") {
		t.Errorf("an empty list would allow any URI: a role without URIs must not have the parameter, got\n%s", text)
	}
}

// A URI of another form could stand for several, or for another to Vault or to a reader of the certificate.
func TestURI_OfAnotherFormIsRefused(t *testing.T) {
	for name, uri := range map[string]string{
		"a wildcard": "spiffe://alice/*", "a wildcard alone": "*", "a wildcard in the authority": "spiffe://*/worker", "a comma": "spiffe://alice/a,spiffe://alice/b",
		"a percent escape": "spiffe://alice/%2a", "a port": "spiffe://alice:443/a", "a user": "spiffe://root@alice/a", "a query": "spiffe://alice/a?b", "a fragment": "spiffe://alice/a#b",
		"a dot segment": "spiffe://alice/./a", "a parent segment": "spiffe://alice/a/../b", "a parent at the end": "spiffe://alice/..", "an empty segment": "spiffe://alice//a",
		"a slash at the end": "spiffe://alice/", "no authority": "spiffe:///a", "no scheme": "alice/a", "no slashes": "urn:uuid:1", "an upper-case scheme": "SPIFFE://alice/a",
		"an upper-case authority": "spiffe://Alice/a", "an empty label": "spiffe://alice..example/a", "a dot at the end": "spiffe://alice./a", "a space": "spiffe://alice/a b",
		"a space behind it": "spiffe://alice/a ", "a line": "spiffe://alice/a\\nb", "a null byte": "spiffe://alice/a\\0", "a quote": `spiffe://alice/a\"`, "braces": "spiffe://alice/{a}",
		"a letter that looks like an a": "spiffe://alice/\u0430", "nothing": "", "513 bytes": "spiffe://alice/" + strings.Repeat("a", 498),
	} {
		for _, field := range []string{"uri_sans", "shared_uri_sans"} {
			if _, err := grant.Load(filesWith(withURIs(field + `: ["` + uri + `"]`))); err == nil || !strings.Contains(err.Error(), field) {
				t.Errorf("%s in %s: want the profile refused, got %v", name, field, err)
			}
		}
	}
	rendered(t, filesWith(withURIs(`uri_sans: ["spiffe://alice/`+strings.Repeat("a", 497)+`"]`)), baseline())
}

func TestURI_IsNotChosenByATag(t *testing.T) {
	wantFault(t, filesWith(withURIs(`uri_sans: ['spiffe://alice/{{ .Tag "team" }}']`)), "uri_sans", "take names from tags through fqdn")
	wantFault(t, filesWith(withURIs(`shared_uri_sans: ['spiffe://alice/{{ .Tag "team" }}']`)), "shared_uri_sans", "take names from tags through fqdn")
	wantFault(t, filesWith(withURIs(`shared_uri_sans: ["spiffe://alice/{{ .FQDN }}"]`)), "shared_uri_sans", "which others do not share")
	wantFault(t, filesWith(replace("worker/profile.yaml", "path: ssh/roles,", "path: ssh/roles, uri_sans: [spiffe://alice/a],")), "no names")
	wantFault(t, filesWith(replace("worker/kubelet.json.tmpl", `{`, `{"allowed_uri_sans": ["*"], `)), "allowed_uri_sans", "set by the program")

	// The master's URIs are reserved: neither a tag nor any other value of a worker makes one of them.
	master := strings.Replace(masterProfile, "    template: kubelet", "    uri_sans: [\"spiffe://alice/node/{{ .InstanceID }}.corp.example\"]\n    shared_uri_sans: [spiffe://alice/node/db1.corp.example]\n    template: kubelet", 1)
	fs := filesWith(tagged, second(master), withURIs(`uri_sans: ["spiffe://alice/node/{{ .FQDN }}"]`))
	for name, says := range map[string]string{
		"db1.corp.example":                 "is fixed in profile alice_cluster-master",
		"i-0fedcba9876543210.corp.example": "has the form of the names of profile alice_cluster-master",
	} {
		f := baseline()
		f.Tags["name"] = name
		if _, err := render(t, fs, f); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), says) {
			t.Errorf("a tag that makes the URI of %s: want a refusal that says %q, got %v", name, says, err)
		}
	}
	f := baseline()
	f.Tags["name"] = "db2.corp.example"
	if claim := (grant.Claim{Under: "alice_cluster/pki/k8s", Text: "spiffe://alice/node/db2.corp.example"}); !slices.Contains(rendered(t, fs, f).Claims, claim) {
		t.Error("want the URI that a tag chooses by the FQDN claimed: two instances could hold it")
	}
}
