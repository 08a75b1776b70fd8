package grant_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// withHost adds an SSH role with more fields to the baseline, and access to it.
func withHost(fields string) func(fstest.MapFS) {
	return both(
		replace("worker/profile.yaml", "  - {name: host, type: generic, path: ssh/roles", "  - {name: sshd, type: ssh-role, path: ssh/roles"+fields+", template: sshd.json.tmpl}\n  - {name: host, type: generic, path: hosts/roles"),
		replace("worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`, "{{ pkiAccess \"kubelet\" }}\n{{ sshAccess \"sshd\" }}"),
		text("worker/sshd.json.tmpl", `{"ttl": "24h", "max_ttl": "48h"}`))
}

// hostRole returns the SSH role of a grant.
func hostRole(t *testing.T, g *grant.Grant) grant.Object {
	t.Helper()
	i := slices.IndexFunc(g.Objects, func(o grant.Object) bool { return o.Kind == grant.KindSSHRole })
	if i < 0 {
		t.Fatalf("want an SSH role, got %v", g.Objects)
	}
	return g.Objects[i]
}

func TestSSHRole_SignsForTheInstanceAlone(t *testing.T) {
	f := baseline()
	f.IPv6s = []netip.Addr{netip.MustParseAddr("2001:0db8:0::5")}
	g := rendered(t, filesWith(documented, withHost(", shared_dns_names: [bastion.corp.example]")), f)
	role := hostRole(t, g)
	if want := "alice_cluster/ssh/roles/i-0123456789abcdef0-sshd"; role.Path != want {
		t.Errorf("got the path %s, want %s", role.Path, want)
	}
	const all = "10.1.1.4,2001:db8::5,bastion.corp.example,ip-10-1-1-4.ec2.internal"
	got, err := json.Marshal(role.Fields)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"algorithm_signer":"default","allow_bare_domains":true,"allow_empty_principals":false,"allow_host_certificates":true,"allow_subdomains":false,` +
		`"allow_user_certificates":false,"allow_user_key_ids":false,"allowed_critical_options":"none","allowed_domains":"` + all + `","allowed_domains_template":false,` +
		`"allowed_extensions":"","allowed_user_key_lengths":{"ecdsa":[256,384,521],"ed25519":[0],"rsa":[2048,3072,4096]},"allowed_users":"","allowed_users_template":false,` +
		`"default_critical_options":{},"default_extensions":{},"default_extensions_template":false,"default_user":"","default_user_template":false,` +
		`"key_id_format":"{{role_name}}","key_type":"ca","max_ttl":172800,"not_before_duration":30,"ttl":86400}`
	if string(got) != want {
		t.Errorf("got the role\n%s\nwant every field of an SSH role:\n%s", got, want)
	}
	rule := `path "alice_cluster/ssh/sign/i-0123456789abcdef0-sshd" {
  capabilities = ["update"]
  allowed_parameters = {
    "cert_type" = ["host"]
    "public_key" = []
    "ttl" = []
    "valid_principals" = ["10.1.1.4", "2001:db8::5", "bastion.corp.example", "ip-10-1-1-4.ec2.internal", "` + all + `"]
  }
  denied_parameters = {
    "cert_type" = [""]
    "valid_principals" = [""]
  }
  required_parameters = ["cert_type", "valid_principals"]
}
`
	policy := policyOf(g)
	if !strings.Contains(policy, rule) || strings.Count(policy, "alice_cluster/ssh/") != 2 {
		t.Errorf("want this rule and no other of the mount\n%s\ngot\n%s", rule, policy)
	}
	if document := `"host_certificates":{"sshd":{"sign":"alice_cluster/ssh/sign/i-0123456789abcdef0-sshd","valid_principals":"` + all + `"}}`; !strings.Contains(policy, document) {
		t.Errorf("want %s in the instance's document, got\n%s", document, policy)
	}
	var claimed []string
	for _, c := range g.Claims {
		if c.Under == "alice_cluster/ssh" {
			claimed = append(claimed, c.Text)
		}
	}
	if want := []string{"10.1.1.4", "2001:db8::5", "ip-10-1-1-4.ec2.internal"}; !slices.Equal(claimed, want) {
		t.Errorf("got the claims %q, want each name and address that is not shared: %q", claimed, want)
	}
	if hours := g.CertificateTTL.Hours(); hours != 48 {
		t.Errorf("got a CertificateTTL of %v hours, want the SSH role's max_ttl: a former name stays claimed so long", hours)
	}
}

// Vault drops a field that it does not know without a warning. A role without one of the fields may sign more.
func TestSSHRole_EachFieldIsCompared(t *testing.T) {
	role := hostRole(t, rendered(t, filesWith(withHost("")), baseline()))
	text, err := json.Marshal(role.Fields)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]any{}
	if err := json.Unmarshal(text, &stored); err != nil {
		t.Fatal(err)
	}
	if d := role.Differences(stored); len(d) > 0 {
		t.Fatalf("want no difference from what was written, got %q", d)
	}
	for name, value := range role.Fields {
		without := maps.Clone(stored)
		delete(without, name)
		if d := role.Differences(without); !slices.Equal(d, []string{name}) {
			t.Errorf("%s is missing in the answer: got the differences %q", name, d)
		}
		other := any("*")
		switch v := value.(type) {
		case bool:
			other = !v
		case int64:
			other = v + 1
		case map[string]any:
			other = map[string]any{"permit-pty": ""}
		}
		if name == "allowed_user_key_lengths" {
			other = map[string]any{}
		}
		changed := maps.Clone(stored)
		changed[name] = other
		if d := role.Differences(changed); !slices.Equal(d, []string{name}) {
			t.Errorf("%s is %v: got the differences %q", name, other, d)
		}
	}
}

func TestSSHRole_BadProfilesAreRefused(t *testing.T) {
	const sshd = "worker/sshd.json.tmpl"
	for name, row := range map[string]struct {
		change func(fstest.MapFS)
		says   []string
	}{
		"no max_ttl":               {replace(sshd, `, "max_ttl": "48h"`, ""), []string{"sshd.json.tmpl", "max_ttl is required"}},
		"a max_ttl beyond bounds":  {replace(sshd, "48h", "9000h"), []string{"MAX_CERTIFICATE_TTL"}},
		"a ttl beyond max_ttl":     {replace(sshd, "24h", "49h"), []string{"longer than max_ttl"}},
		"an unknown field":         {replace(sshd, "{", `{"port": 22, `), []string{"sshd.json.tmpl:1", `unknown field "port"`}},
		"SHA-1":                    {replace(sshd, "{", `{"algorithm_signer": "ssh-rsa", `), []string{"algorithm_signer", "rsa-sha2-256"}},
		"any key":                  {replace(sshd, "{", `{"allowed_user_key_lengths": {}, `), []string{"Vault would sign any key"}},
		"a DSA key":                {replace(sshd, "{", `{"allowed_user_key_lengths": {"dsa": [1024]}, `), []string{`"dsa" is none of`}},
		"a key without length":     {replace(sshd, "{", `{"allowed_user_key_lengths": {"rsa": []}, `), []string{`"rsa" has no length`}},
		"a key with text":          {replace(sshd, "{", `{"allowed_user_key_lengths": {"rsa": ["2048"]}, `), []string{"not a key's length"}},
		"a list of keys":           {replace(sshd, "{", `{"allowed_user_key_lengths": ["rsa"], `), []string{"not an object of lists"}},
		"a field twice":            {replace(sshd, "{", `{"ttl": "1h", `), []string{"ttl"}},
		"a tag in the role":        {replace(sshd, `"24h"`, `"{{ .Tag "team" }}"`), []string{"no tag may be in a certificate"}},
		"a tag as a name":          {replace("worker/profile.yaml", "type: ssh-role,", `type: ssh-role, dns_names: ['{{ .Tag "team" }}'],`), []string{"take names from tags through fqdn"}},
		"a common name":            {replace("worker/profile.yaml", "type: ssh-role,", "type: ssh-role, common_name: a.example,"), []string{"neither a common name nor URIs"}},
		"a URI":                    {replace("worker/profile.yaml", "type: ssh-role,", "type: ssh-role, uri_sans: [spiffe://a/b],"), []string{"neither a common name nor URIs"}},
		"a wildcard":               {replace("worker/profile.yaml", "type: ssh-role,", `type: ssh-role, dns_names: ["*.corp.example"],`), []string{"not a valid host name"}},
		"names with a comma":       {replace("worker/profile.yaml", "type: ssh-role,", `type: ssh-role, dns_names: ["a.example,b.example"],`), []string{"not a valid host name"}},
		"no principals":            {replace("worker/profile.yaml", "type: ssh-role,", "type: ssh-role, dns_names: [], ip_addresses: [],"), []string{"needs a name or an address"}},
		"a path that is no folder": {replace("worker/profile.yaml", "type: ssh-role, path: ssh/roles", "type: ssh-role, path: ssh"), []string{"is not <SSH mount>/roles"}},
		"a PKI role on the mount":  {replace("worker/profile.yaml", "path: pki/k8s/roles", "path: ssh/roles"), []string{"each engine has a mount of its own"}},
		"access to another output": {replace("worker/policy.hcl.tmpl", `sshAccess "sshd"`, `sshAccess "kubelet"`), []string{`sshAccess "kubelet" names no ssh-role output`}},
		"access to a PKI role":     {replace("worker/policy.hcl.tmpl", `pkiAccess "kubelet"`, `pkiAccess "sshd"`), []string{`pkiAccess "sshd" names no pki-role output`}},
		"access in a role":         {replace(sshd, "24h", `{{ sshAccess "sshd" }}`), []string{"sshAccess is for policies only"}},
		"access by a value":        {replace("worker/policy.hcl.tmpl", `sshAccess "sshd"`, `sshAccess .Profile`), []string{"sshAccess needs the literal name"}},
		"a changed rule":           {replace("worker/policy.hcl.tmpl", `{{ sshAccess "sshd" }}`, `{{ replace "host" "user" (sshAccess "sshd") }}`), []string{"differs from the rule"}},
		"a rule without denial":    {replace("worker/policy.hcl.tmpl", `{{ sshAccess "sshd" }}`, `{{ replace "[\"\"]" "[\"x\"]" (sshAccess "sshd") }}`), []string{"differs from the rule"}},
		"a rule without need":      {replace("worker/policy.hcl.tmpl", `{{ sshAccess "sshd" }}`, `{{ replace ", \"valid_principals\"]" "]" (sshAccess "sshd") }}`), []string{"differs from the rule"}},
	} {
		t.Run(name, func(t *testing.T) { wantFault(t, filesWith(withHost(""), row.change), row.says...) })
	}
	free := []string{"ttl", "max_ttl", "not_before_duration", "algorithm_signer", "allowed_user_key_lengths"}
	for field := range hostRole(t, rendered(t, filesWith(withHost("")), baseline())).Fields {
		if !slices.Contains(free, field) {
			wantFault(t, filesWith(withHost(""), replace(sshd, "{", fmt.Sprintf(`{%q: true, `, field))), field, "is set by the program")
		}
	}
	loaded(t, filesWith(withHost(""), replace(sshd, "{", `{"allowed_user_key_lengths": {"rsa": [3072, 4096], "ssh-ed25519": 0}, "algorithm_signer": "rsa-sha2-512", "not_before_duration": "1m", `)))
}

func TestSSHMount_IsReachedBySSHAccessOnly(t *testing.T) {
	for _, path := range []string{
		"sign/i-0123456789abcdef0-other", "sign/*", "sign/+", "issue/i-0123456789abcdef0-sshd", "issue/*", "roles/*", "config/ca", "*", "creds/x", "+/i-0123456789abcdef0-sshd",
	} {
		rule := "\npath \"alice_cluster/ssh/" + path + "\" {\n  capabilities = [\"update\"]\n}\n"
		wantFault(t, filesWith(withHost(""), func(fs fstest.MapFS) {
			fs["worker/policy.hcl.tmpl"].Data = append(slices.Clone(fs["worker/policy.hcl.tmpl"].Data), rule...)
		}), "reaches the SSH mount alice_cluster/ssh: only sshAccess")
	}
	loaded(t, filesWith(withHost(""), replace("worker/policy.hcl.tmpl", "{{ sshAccess", "path \"alice_cluster/ssh/public_key\" {\n  capabilities = [\"read\"]\n}\n{{ sshAccess")))
	wantFault(t, filesWith(withHost(""), replace("worker/profile.yaml", "path: hosts/roles", "path: ssh/roles")), "cannot be written into the SSH mount alice_cluster/ssh: use type ssh-role")

	without := hostRole(t, rendered(t, filesWith(withHost(", shared_dns_names: [bastion.corp.example]"), replace("worker/policy.hcl.tmpl", `{{ sshAccess "sshd" }}`, "")), baseline()))
	if got := without.Fields["allowed_domains"]; got != "ip-10-1-1-4.ec2.internal" {
		t.Errorf("want neither addresses nor shared names in a role that no policy reaches, got %q", got)
	}
}

// A tag that chooses the FQDN chooses a principal, so a name of another profile is refused as in certificates.
func TestSSHName_OfAnotherProfileIsRefused(t *testing.T) {
	master := strings.Replace(masterProfile, "outputs:\n", "outputs:\n  - {name: sshd, type: ssh-role, path: ssh/roles, dns_names: [gate.corp.example, \"gate-{{ .InstanceID }}.corp.example\"], template: sshd.json.tmpl}\n", 1)
	fs := filesWith(tagged, withHost(""), second(master), func(fs fstest.MapFS) {
		fs["master/sshd.json.tmpl"] = fs["worker/sshd.json.tmpl"]
		fs["master/policy.hcl.tmpl"] = &fstest.MapFile{Data: []byte(`{{ pkiAccess "kubelet" }}`)}
	})
	for name, says := range map[string]string{
		"gate.corp.example":                     "is fixed in profile alice_cluster-master",
		"gate-i-0fedcba9876543210.corp.example": "has the form of the names of profile alice_cluster-master",
	} {
		f := baseline()
		f.Tags["name"] = name
		if _, err := render(t, fs, f); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "alice_cluster/ssh") || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: want a refusal that says %q of the SSH mount, got %v", name, says, err)
		}
	}
}
