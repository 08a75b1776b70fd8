package integration

import (
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
)

// The classes of attempts for a URI.
const (
	anothersURI  = "another's URI"
	widerURI     = "wildcard, parent, look-alike, other spelling"
	uriElsewhere = "URI in another field or in the CSR"
	withoutURIs  = "a role without URIs"
	roleAlone    = "by the PKI role alone, without the policy"
	removedURI   = "after the instance's end"
)

// sharedURI is the one URI that all workers of withURIs hold.
const sharedURI = "spiffe://alice/worker"

// withURIs returns a provision function whose workers have a URI of their own and a shared one in the kubelet's certificate, with the
// change of further files.
func withURIs(t *testing.T, changes ...[3]string) *sandbox.Function {
	t.Helper()
	const line = `common_name: "system:node:{{ .FQDN }}"`
	fields := line + "\n    uri_sans: [\"spiffe://alice/{{ .AccountID }}/{{ .InstanceID }}\", " + sharedURI + "]"
	return variant(t, provision, map[string]string{"TEMPLATES_DIR": edited(t, append(changes, [3]string{"worker/profile.yaml", line, fields})...)})
}

func ownURI(i fleet.Instance) string { return "spiffe://alice/" + i.AccountID + "/" + i.ID }

// joinWithURIs returns a logged-in worker with URIs.
func joinWithURIs(t *testing.T, by *sandbox.Function) member {
	t.Helper()
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, by, i, "running", "provisioned")
	session := login(t, i)
	return member{Instance: i, session: session, kubelet: allowed{
		role: i.ID + "-kubelet", cn: "system:node:" + i.PrivateDNS, dns: []string{i.PrivateDNS}, addresses: []string{i.PrivateIP},
		uris: []string{ownURI(i), sharedURI}, organization: []string{"system:nodes"},
		usage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		extUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}}
}

func TestURIs_AreTheInstancesOwn(t *testing.T) {
	by := withURIs(t)
	me, other := joinWithURIs(t, by), joinWithURIs(t, by)
	mine, theirs := ownURI(me.Instance), ownURI(other.Instance)
	sorted := slices.Sorted(slices.Values(me.kubelet.uris))
	plain := join(t) // a worker of a profile without URIs
	a := &attempts{t: t, me: me}
	works := func(when string) {
		t.Helper()
		for form, value := range map[string]any{"its own": mine, "its own, in a list": []string{mine}, "all, as a comma string": strings.Join(sorted, ","), "all, in a list": sorted} {
			for _, op := range []string{"issue", "sign"} {
				path, all := a.ask(op, me.kubelet, map[string]any{"uri_sans": value})
				status, body := send(t, me.session.Client, request{path: path, body: text(t, all)})
				got, cert, err := judge(me.kubelet, status, body)
				if got != harmless || len(cert.URIs) == 0 {
					t.Fatalf("%s the attempts: %s of %s failed with %d %.200s %v, so refusals prove nothing", when, op, form, status, body, err)
				}
			}
		}
	}
	works("before")
	a.uris(mine, theirs, plain)
	var table tally
	for _, row := range a.list {
		t.Run(row.class+"/"+strings.ReplaceAll(row.name, "/", "|"), func(t *testing.T) {
			status, body := send(t, me.session.Client, row.request)
			got, _, err := judge(row.own, status, body)
			if err != nil {
				t.Errorf("%s %.600s: %v", row.request.path, row.request.body, err)
				got = "more than its own"
			}
			if byPolicy := row.class == anothersURI || row.class == widerURI; byPolicy && status != http.StatusForbidden {
				t.Errorf("%.600s: want the policy to refuse it (403) before the role does, got %d %.200s", row.request.body, status, body)
			}
			table.add(row.class, got)
		})
	}
	works("after")

	// The role has a lock of its own: without the policy it issues the same URIs and no others.
	everything := outsider(t)
	for name, uri := range spellings(mine, theirs) {
		for _, op := range []string{"issue", "sign"} {
			path, all := a.ask(op, me.kubelet, map[string]any{"uri_sans": uri})
			status, body := send(t, everything, request{path: path, body: text(t, all)})
			if status != http.StatusBadRequest {
				t.Errorf("%s, by %s and the role alone: want it refused, got %d %.200s", name, op, status, body)
			}
			table.add(roleAlone, refused)
		}
	}

	remove(t, me.Instance)
	for _, op := range []string{"issue", "sign"} {
		path, all := a.ask(op, me.kubelet, map[string]any{"uri_sans": mine})
		if status, body := send(t, me.session.Client, request{path: path, body: text(t, all)}); status != http.StatusForbidden {
			t.Errorf("%s: want it refused, got %d %.200s", removedURI, status, body)
		}
		table.add(removedURI, refused)
	}
	table.report(t, anothersURI, widerURI, uriElsewhere, withoutURIs, roleAlone, removedURI)
}

// spellings returns URIs that a worker may not have: another's, wider ones, and other spellings of its own.
func spellings(mine, theirs string) map[string]string {
	parent := mine[:strings.LastIndexByte(mine, '/')]
	return map[string]string{
		"another's": theirs, "another's with a query": theirs + "?a", "a wildcard": "spiffe://alice/*", "a wildcard for all": "*", "a wildcard at the end": mine[:len(mine)-1] + "*",
		"the parent": parent, "the parent with a slash": parent + "/", "the trust domain": "spiffe://alice", "below its own": mine + "/admin", "a slash at the end": mine + "/",
		"the last character missing": mine[:len(mine)-1], "one more character": mine + "0", "in capitals": strings.ToUpper(mine), "the ID in capitals": parent + "/" + strings.ToUpper(mine[len(parent)+1:]),
		"the scheme in capitals": "SPIFFE" + mine[len("spiffe"):], "the domain in capitals": strings.Replace(mine, "alice", "ALICE", 1), "another scheme": "https" + mine[len("spiffe"):],
		"another trust domain": strings.Replace(mine, "alice", "mallory", 1), "a user": strings.Replace(mine, "alice", "root@alice", 1), "a port": strings.Replace(mine, "alice", "alice:443", 1),
		"a fragment": mine + "#" + theirs, "a query": mine + "?" + theirs, "an escape": strings.Replace(mine, "/i-", "/%69-", 1), "an escaped slash": strings.Replace(mine, "/i-", "%2fi-", 1),
		"a dot segment": strings.Replace(mine, "/i-", "/./i-", 1), "a parent segment": mine + "/../" + theirs[strings.LastIndexByte(theirs, '/')+1:], "an empty segment": strings.Replace(mine, "/i-", "//i-", 1),
		"the shared one's parent": "spiffe://alice/", "below the shared one": sharedURI + "/" + theirs[strings.LastIndexByte(theirs, '/')+1:], "a look-alike": strings.Replace(mine, "alice", "\u0430lice", 1),
		"a dot behind the domain": strings.Replace(mine, "alice", "alice.", 1), "a template": "spiffe://alice/{{identity.entity.id}}",
	}
}

// uris adds the attempts by the worker's own token.
func (a *attempts) uris(mine, theirs string, plain member) {
	for name, value := range map[string]any{
		"alone": theirs, "behind its own": mine + "," + theirs, "before its own": theirs + "," + mine, "behind its own with a space": mine + ", " + theirs, "between its own": sharedURI + "," + theirs + "," + mine,
		"in a list": []string{theirs}, "in a list behind its own": []string{mine, theirs}, "in a list before its own": []string{theirs, mine}, "in a list behind all": []string{sharedURI, mine, theirs},
		"in one element behind its own": []string{mine + "," + theirs}, "in one element behind all": []string{sharedURI + "," + mine + "," + theirs}, "as JSON in a string": text(a.t, []string{mine, theirs}),
		"in a list of lists": []any{[]string{theirs}}, "in a list of lists with its own": []any{[]string{mine, theirs}}, "in a list beside a list of its own": []any{[]string{mine}, theirs},
		"in an object": map[string]any{"0": theirs}, "in an object in a list": []any{mine, map[string]any{"a": theirs}}, "behind a line": mine + "\n" + theirs, "behind a null byte": mine + "\x00" + theirs,
		"behind a comma without its own": "," + theirs,
	} {
		a.both(anothersURI, name, map[string]any{"uri_sans": value})
	}
	for name, uri := range spellings(mine, theirs) {
		a.both(widerURI, name, map[string]any{"uri_sans": uri})
		a.both(widerURI, name+", in a list behind its own", map[string]any{"uri_sans": []string{mine, uri}})
	}
	for _, field := range []string{"alt_names", "common_name", "other_sans", "user_ids", "ip_sans"} {
		a.both(uriElsewhere, "another's in "+field, map[string]any{field: theirs, "uri_sans": mine})
		a.both(uriElsewhere, "its own in "+field, map[string]any{field: mine})
	}
	for name, fields := range map[string]map[string]any{
		"in upper-case keys": {"URI_SANS": theirs}, "in mixed case beside its own": {"uri_sans": mine, "Uri_Sans": theirs}, "with dashes": {"uri-sans": theirs}, "with a space": {"uri_sans ": theirs},
		"under another name": {"uri": theirs}, "as the role's field": {"allowed_uri_sans": "*", "uri_sans": theirs}, "as a template": {"allowed_uri_sans_template": true, "uri_sans": theirs},
	} {
		a.both(uriElsewhere, "another's "+name, fields)
	}
	u, err := url.Parse(theirs)
	if err != nil {
		a.t.Fatal(err)
	}
	foreign := csr(a.t, &x509.CertificateRequest{URIs: []*url.URL{u}})
	for how, fields := range map[string]map[string]any{
		"alone": {}, "beside its own": {"uri_sans": mine}, "asking for its SANs": {"use_csr_sans": true}, "with nothing but the CSR": {"common_name": gone{}, "alt_names": gone{}, "ip_sans": gone{}},
	} {
		all := map[string]any{"csr": foreign}
		maps.Copy(all, fields)
		path, body := a.ask("sign", a.me.kubelet, all)
		a.list = append(a.list, attempt{uriElsewhere, "another's in the CSR, " + how, a.me.kubelet, request{path: path, body: text(a.t, body)}})
	}
	// A role without URIs grants none to any client.
	proxy := allowed{role: a.me.ID + "-kube_proxy", cn: "system:kube-proxy"}
	for _, role := range []allowed{proxy, plain.kubelet} {
		for _, op := range []string{"issue", "sign"} {
			for _, uri := range []string{mine, theirs, sharedURI} {
				path, all := a.ask(op, allowed{role: role.role, cn: role.cn}, map[string]any{"uri_sans": uri})
				a.list = append(a.list, attempt{withoutURIs, fmt.Sprintf("%s by %s with %s", op, role.role, uri), allowed{}, request{path: path, body: text(a.t, all)}})
			}
		}
	}
}

// A URI that is not the instance's alone is claimed as names are.
func TestURI_IsHeldByOneLiveInstance(t *testing.T) {
	c := &contention{t: t}
	const line = `common_name: "system:node:{{ .FQDN }}"`
	by := variant(t, provision, map[string]string{"TEMPLATES_DIR": edited(t, [3]string{"worker/profile.yaml", line, line + "\n    uri_sans: [\"spiffe://alice/{{ .AvailabilityZone }}/leader\"]"})})
	holder := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, by, holder, "running", "provisioned")
	second := launch(t, fleet.Spec{Role: "alice-worker"})
	c.refuses(anothersURI, by, second, holder.ID, "spiffe://alice/", "/leader")
	remove(t, holder)
	mustBy(t, by, second, "running", "provisioned")
	remove(t, second)
}

// The template is the one that docs/profiles.md shows, with uri_sans.
func TestAgent_GetsItsURI(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, withURIs(t), i, "running", "provisioned")
	a := boot(t, i, lab.AgentOptions{Role: "worker", Files: map[string]string{
		"etc/vault-agent/templates/kubelet.ctmpl": `{{ with secret (printf "sys/policies/acl/ec2-%s-node" (env "INSTANCE_ID")) -}}
{{ with index (or (.Data.policy | regexReplaceAll "(?s)(.*\n# identity: ([^\n]*)\n)?.*" "$2" | parseJSON).certificates sprig_dict) "kubelet" -}}
{{ with pkiCert .issue (printf "common_name=%s" .common_name) (printf "alt_names=%s" .alt_names) (printf "ip_sans=%s" .ip_sans) (printf "uri_sans=%s" .uri_sans) "ttl=24h" -}}
{{ .Cert }}{{ .CA }}{{ .Key }}
{{- end }}{{ else }}{{ with secret "kubelet-is-not-granted" }}{{ end }}{{ end }}{{ end }}
`,
	}})
	cert := certificateOf(t, a, "etc/kubernetes/pki/kubelet.pem")
	var got []string
	for _, u := range cert.URIs {
		got = append(got, u.String())
	}
	if want := []string{ownURI(i), sharedURI}; !slices.Equal(got, want) {
		t.Errorf("got a certificate with the URIs %q, want what was granted: %q", got, want)
	}
}
