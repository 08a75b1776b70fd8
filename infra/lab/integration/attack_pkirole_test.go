package integration

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// outsider returns a client whose policy reaches every role of the workers' and masters' PKI mount. Vault cannot keep such a
// policy from the roles.
func outsider(t *testing.T) *vaultapi.Client {
	t.Helper()
	const name = "lab-shared-mount"
	policy := `path "` + k8s + `/issue/*" { capabilities = ["update"] }` + "\n" + `path "` + k8s + `/sign/*" { capabilities = ["update"] }`
	vaultSet(t, "sys/policies/acl/"+name, map[string]any{"policy": policy})
	return clientOn(t, fleet.Instance{}, tokenWith(t, name))
}

// TestPKIRole_AloneBoundsCertificates tests the roles alone, without an instance's policy. It also asserts the requests that only
// such a policy refuses, as SECURITY.md says.
func TestPKIRole_AloneBoundsCertificates(t *testing.T) {
	// A master whose policy has no access to the API server's role.
	without := variant(t, provision, map[string]string{"TEMPLATES_DIR": edited(t, [3]string{"master/policy.hcl.tmpl", `{{ pkiAccess "kube_apiserver" }}`, ""})})
	bereft, master, worker := launch(t, fleet.Spec{Role: "alice-master"}), launch(t, fleet.Spec{Role: "alice-master"}), launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, without, bereft, "running", "provisioned")
	must(t, provision, master, "running", "provisioned")
	must(t, provision, worker, "running", "provisioned")

	role := vaultRead(t, k8s+"/roles/"+bereft.ID+"-kube_apiserver")
	if role["allow_ip_sans"] != false || strings.Contains(strings.ToLower(text(t, role)), "kubernetes") {
		t.Errorf("want a role without access to have no addresses and no shared names, got %v", role)
	}

	type shape struct {
		role, cn  string
		dns       []string // all names that its certificates may have
		addresses bool     // whether the role alone allows any address
	}
	unreachable := shape{bereft.ID + "-kube_apiserver", bereft.PrivateDNS, []string{bereft.PrivateDNS, "localhost"}, false}
	kubelet := shape{worker.ID + "-kubelet", "system:node:" + worker.PrivateDNS, []string{worker.PrivateDNS}, true}
	proxy := shape{worker.ID + "-kube_proxy", "system:kube-proxy", nil, false}
	masters := shape{master.ID + "-kube_apiserver", master.PrivateDNS, []string{
		master.PrivateDNS, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}, true}
	client := outsider(t)
	full := csr(t, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "kubernetes", Organization: []string{"system:masters"}, SerialNumber: "1"},
		DNSNames: []string{"kubernetes", "api.alice.example", master.PrivateDNS}, IPAddresses: []net.IP{net.IPv4(10, 254, 0, 1)},
	})
	asked, got, open := 0, 0, map[string]bool{}
	for _, s := range []shape{unreachable, kubelet, proxy, masters} {
		for what, fields := range map[string]map[string]any{
			"its own name":               {},
			"a shared name as CN":        {"common_name": "kubernetes.default.svc"},
			"the API server's name":      {"alt_names": "kubernetes"},
			"all shared names":           {"alt_names": "kubernetes,kubernetes.default,kubernetes.default.svc,kubernetes.default.svc.cluster.local"},
			"another master's name":      {"alt_names": "ip-10-9-9-9.ec2.internal"},
			"a client's CN":              {"common_name": "system:kube-scheduler"},
			"an administrator's CN":      {"common_name": "system:masters"},
			"a wildcard":                 {"alt_names": "*." + s.cn},
			"a name below its own":       {"alt_names": "x." + s.cn},
			"the service's address":      {"ip_sans": "10.254.0.1"},
			"a public address":           {"ip_sans": "8.8.8.8"},
			"loopback":                   {"ip_sans": "127.0.0.1"},
			"a URI":                      {"uri_sans": "spiffe://alice/master"},
			"another kind of name":       {"other_sans": "1.3.6.1.4.1.311.20.2.3;utf8:root"},
			"a user ID":                  {"user_ids": "root"},
			"a serial number of its own": {"serial_number": "1"},
			"an address as a name":       {"alt_names": "10.254.0.1"},
		} {
			for _, op := range []string{"issue", "sign"} {
				all := map[string]any{"common_name": s.cn}
				maps.Copy(all, fields)
				if op == "sign" {
					all["csr"] = full
				}
				asked++
				status, body := send(t, client, request{path: k8s + "/" + op + "/" + s.role, body: text(t, all)})
				if status != http.StatusOK {
					if status != http.StatusBadRequest {
						t.Errorf("%s, %s of %s: got %d %.200s", op, what, s.role, status, body)
					}
					continue
				}
				got++
				var answer struct{ Data struct{ Certificate string } }
				if err := json.Unmarshal(body, &answer); err != nil {
					t.Fatal(err)
				}
				cert := certificate(t, answer.Data.Certificate)
				if cert.Subject.CommonName != s.cn && !slices.Contains(s.dns, cert.Subject.CommonName) {
					t.Errorf("%s, %s of %s: got the common name %q", op, what, s.role, cert.Subject.CommonName)
				}
				for _, name := range cert.DNSNames {
					if !slices.Contains(s.dns, name) {
						t.Errorf("%s, %s of %s: got the name %q", op, what, s.role, name)
					}
				}
				if len(cert.IPAddresses) > 0 && !s.addresses || len(cert.URIs)+len(cert.EmailAddresses) > 0 || cert.Subject.SerialNumber != "" || slices.Contains(cert.Subject.Organization, "system:masters") {
					t.Errorf("%s, %s of %s: got %v, %v, %+v", op, what, s.role, cert.IPAddresses, cert.URIs, cert.Subject)
				}
				if len(cert.IPAddresses) > 0 && cert.IPAddresses[0].Equal(net.IPv4(8, 8, 8, 8)) {
					open[s.role] = true
				}
			}
		}
	}
	t.Logf("%d requests without an instance's policy, %d certificates", asked, got)
	locks := serverOf(t).LocksAddresses()
	want := map[string]bool{kubelet.role: true, masters.role: true}
	if locks {
		want = map[string]bool{}
	}
	if !maps.Equal(open, want) {
		t.Errorf("want any address allowed only by the roles of instances with addresses, where the server's roles cannot restrict them (%v), got %v", !locks, open)
	}
	ask := func(role string, fields map[string]any) *x509.Certificate {
		t.Helper()
		status, body := send(t, client, request{path: k8s + "/issue/" + role, body: text(t, fields)})
		var answer struct{ Data struct{ Certificate string } }
		if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK {
			t.Fatalf("%v: Vault now refuses this, so change SECURITY.md: %d %s", fields, status, body)
		}
		return certificate(t, answer.Data.Certificate)
	}
	if cert := ask(kubelet.role, map[string]any{"common_name": kubelet.cn, "ttl": "87600h"}); time.Until(cert.NotAfter) > maxTTL+time.Minute {
		t.Errorf("want max_ttl to bound the requested ttl, got %s", cert.NotAfter)
	}
	// The roles alone allow the names that masters share, to a master that may have them, and any not_after up to the end of
	// the CA.
	ask(masters.role, map[string]any{"common_name": master.PrivateDNS, "alt_names": "kubernetes", "ip_sans": "10.254.0.1"})
	late := map[string]any{"common_name": kubelet.cn, "not_after": "2035-01-01T00:00:00Z"}
	if locks {
		if status, body := send(t, client, request{path: k8s + "/issue/" + kubelet.role, body: text(t, late)}); status != http.StatusBadRequest {
			t.Errorf("want the role alone to forbid not_after, got %d %s", status, body)
		}
		return
	}
	if cert := ask(kubelet.role, late); cert.NotAfter.Year() != 2035 {
		t.Errorf("Vault now bounds not_after (%s), so change SECURITY.md", cert.NotAfter)
	}
}

// TestLifetimeBound_StopsNewGrantsOnly lowers the bound below what the profiles have.
func TestLifetimeBound_StopsNewGrantsOnly(t *testing.T) {
	const rule = "longer than MAX_CERTIFICATE_TTL (1h0m0s)"
	env := map[string]string{"MAX_CERTIFICATE_TTL": "1h"}
	granting, removing, comparing := variant(t, provision, env), variant(t, deprovision, env), variant(t, reconcile, env)
	old := join(t) // granted under the former bound
	granted := grantFields(t, old.Instance)
	works := func(when string) {
		t.Helper()
		if len(alive(t, old.Instance, map[string]string{"token": old.session.Token()})) != 2 {
			t.Errorf("%s: the token no longer works", when)
		}
		if now := grantFields(t, old.Instance); text(t, now) != text(t, granted) {
			t.Errorf("%s: want every object as it was", when)
		}
		if _, err := world.Fleet.Login(t.Context(), world.AuthMount, old.Instance, old.session.Nonce); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	fresh := launch(t, fleet.Spec{Role: "alice-worker"})
	c := &contention{t: t}
	c.refuses("lifetime", granting, fresh, rule, "kubelet.json.tmpl", "nothing new is granted")
	logged(t, granting, "a profile breaks a rule")
	logged(t, granting, `"profile":"alice_cluster-worker"`)
	if a := bare(t, granting, fleet.Event(old.Instance, "running", time.Now())); a.Kind != "refuse" || !strings.Contains(a.Error, rule) {
		t.Errorf("want the rule named, got %+v", a)
	}
	works("an event of the instance")
	for _, i := range []fleet.Instance{old.Instance, fresh} {
		a := runReconcile(t, comparing, rec.Input{Mode: rec.Correct, InstanceIDs: []string{i.ID}})
		if len(a.Drift) != 1 || !strings.Contains(a.Drift[0].Error, rule) || a.Summary.Corrected > 0 {
			t.Errorf("want reconcile to name the rule and change nothing, got %+v", a)
		}
	}
	works("a comparison")
	if left := objects(t, fresh); len(left) > 0 {
		t.Errorf("refused, but made: %v", left)
	}
	r, checks := examine(t, comparing)
	if got := checks["profile rules"]; r.OK || got.OK || !strings.Contains(got.Detail, "alice_cluster-worker") || !strings.Contains(got.Detail, rule) || got.Remedy == "" {
		t.Errorf("want doctor to name the profile, the rule and the remedy, got %+v", got)
	}
	terminate(t, old.Instance)
	if a := bare(t, removing, fleet.Event(old.Instance, "terminated", time.Now())); a.Action != "deprovisioned" {
		t.Errorf("want the removal done despite the rule, got %+v", a)
	}
	wantGone(t, old.Instance, old.session)
}
