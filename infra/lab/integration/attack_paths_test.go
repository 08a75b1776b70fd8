package integration

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"slices"
	"testing"
)

func (a *attempts) paths(other member) {
	mine := a.me.kubelet.role
	for _, path := range []string{
		"issuer/default/issue/" + mine, "issuer/default/sign/" + mine, "issuer/default/sign-verbatim", "issuer/default/sign-verbatim/" + mine,
		"issuer/default/sign-intermediate", "issuer/default/sign-self-issued", "issuer/default/sign-revocation-list", "issuer/default/resign-crls",
		"issuer/default/revoke", "issuer/default", "issue", "sign", "sign-verbatim", "sign-verbatim/" + mine, "root/sign-intermediate",
		"root/sign-self-issued", "root/generate/internal", "root/generate/exported", "root/generate/existing", "root/rotate/internal", "root/replace",
		"intermediate/generate/internal", "intermediate/generate/exported", "intermediate/set-signed", "intermediate/cross-sign",
		"config/ca", "config/issuers", "config/keys", "config/urls", "config/crl", "config/cluster", "config/acme", "config/auto-tidy", "config/est", "config/cmp", "config/scep",
		"issuers/generate/root/internal", "issuers/generate/intermediate/internal", "issuers/import/cert", "issuers/import/bundle", "keys/generate/internal",
		"keys/generate/exported", "keys/import", "key/default", "revoke", "revoke-with-key", "tidy", "tidy-cancel", "crl/rotate", "crl/rotate-delta",
		"roles/" + mine, "roles/" + other.kubelet.role, "roles/anything", "roles/" + a.me.ID + "-another",
	} {
		a.never(otherPaths, request{path: k8s + "/" + path})
	}
	for path, methods := range map[string][]string{
		"roles": {"LIST"}, "roles/": {"LIST", "GET"}, "roles/" + mine: {"GET", "DELETE", "PATCH", "POST"}, "roles/" + other.kubelet.role: {"GET", "DELETE", "PATCH"},
		"issue/" + mine: {"GET", "LIST", "DELETE", "PATCH"}, "sign/" + mine: {"GET", "DELETE"}, "root": {"DELETE"}, "keys": {"LIST"}, "key/default": {"GET", "DELETE"},
		"issuer/default": {"GET", "DELETE", "PATCH"}, "config/urls": {"GET"}, "config/cluster": {"GET"}, "config/acme": {"GET"}, "config/crl": {"GET"}, "config/issuers": {"GET"},
		"certs": {"LIST"}, "certs/revoked": {"LIST"}, "crl/rotate": {"GET"}, "tidy-status": {"GET"}, "config/auto-tidy": {"GET"}, "eab": {"LIST"}, "certs/unified-revoked": {"LIST"},
	} {
		for _, method := range methods {
			a.never(otherPaths, request{method: method, path: k8s + "/" + path, body: "{}"})
		}
	}
	for _, op := range []string{"issue", "sign"} {
		for _, path := range []string{
			k8s + "/" + op + "/" + other.kubelet.role, k8s + "/" + op + "/" + other.proxy.role, k8s + "/" + op + "/" + other.ID + "-kube_apiserver",
			k8s + "/" + op + "/" + mine + "2", k8s + "/" + op + "/" + a.me.ID, k8s + "/" + op + "/*", k8s + "/" + op + "/+",
			"alice_cluster/pki/etcd_k8s/" + op + "/" + mine, "alice_cluster/pki/etcd_k8s/" + op + "/" + other.ID + "-k8s_server", "alice_cluster/pki/k8s_api_proxy/" + op + "/" + mine,
		} {
			for _, who := range []member{a.me, other} {
				_, all := a.ask(op, who.kubelet, nil)
				a.never(anothersRole, request{method: http.MethodPost, path: path, body: text(a.t, all)})
			}
		}
	}
	for _, path := range []string{
		"sys/policies/acl/ec2-" + a.me.ID + "-node", "sys/policies/acl/ec2-" + a.me.ID + "-more", "sys/policy/ec2-" + a.me.ID + "-node", "auth/aws/role/" + a.me.ID, "auth/aws/role/" + other.ID,
		"auth/aws/config/client", "auth/aws/config/certificate/mine", "auth/aws/config/identity", "auth/token/create", "auth/token/create-orphan", "auth/token/roles/mine", "sys/mounts/mine",
		"sys/mounts/" + k8s + "/tune", "sys/remount", "sys/auth/mine", "sys/audit/mine", "identity/entity", "identity/group", "identity/entity-alias", "sys/leases/revoke-prefix/" + k8s, "sys/raw/x", "sys/seal",
	} {
		a.never(widening, request{path: path, body: `{"policy":"path \"*\" { capabilities = [\"sudo\"] }","policies":["root"],"token_policies":["root"],"type":"pki","name":"x"}`})
	}
	own := "sys/policies/acl/ec2-" + a.me.ID + "-node" // which identityAccess lets it read
	for _, r := range []request{{method: "DELETE", path: own}, {method: "PATCH", path: own}, {method: "LIST", path: own}, {method: "LIST", path: "sys/policies/acl"},
		{method: "GET", path: "sys/policy/ec2-" + a.me.ID + "-node"}, {method: "GET", path: own + "/"}, {method: "GET", path: own + "/../ec2-" + other.ID + "-node"}} {
		a.never(widening, r)
	}
	for _, path := range []string{"sys/policies/acl/ec2-" + other.ID + "-node", "sys/policies/acl/ec2-provisioner-reconcile", "auth/aws/role/" + a.me.ID, "auth/aws/identity-accesslist/" + other.ID, "identity/entity/id/" + a.me.session.Auth.EntityID} {
		for _, method := range []string{"GET", "DELETE"} {
			a.never(widening, request{method: method, path: path})
		}
	}
	a.acme()
}

// acme adds the paths that need no token if ACME is enabled. On the lab's mounts it is disabled, as is Vault's default.
func (a *attempts) acme() {
	const jws = `{"protected":"e30","payload":"e30","signature":"AA"}`
	for _, below := range []string{"", "roles/" + a.me.kubelet.role + "/", "issuer/default/", "issuer/default/roles/" + a.me.kubelet.role + "/"} {
		for path, method := range map[string]string{
			"directory": "GET", "new-nonce": "HEAD", "new-account": "POST", "new-order": "POST", "revoke-cert": "POST", "orders": "POST", "account/x": "POST",
			"order/11111111-2222-3333-4444-555555555555/finalize": "POST", "order/11111111-2222-3333-4444-555555555555/cert": "POST", "new-eab": "POST",
		} {
			for _, anonymous := range []bool{true, false} {
				r := request{method: method, path: k8s + "/" + below + "acme/" + path, anonymous: anonymous, header: map[string]string{"Content-Type": "application/jose+json"}}
				if method == http.MethodPost {
					r.body = jws
				}
				a.never(acme, r)
			}
		}
	}
}

func TestCertificate_IsIssuedForEachRequestForm(t *testing.T) {
	me := join(t)
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: me.kubelet.cn, Organization: me.kubelet.organization}, DNSNames: me.kubelet.dns, IPAddresses: []net.IP{net.ParseIP(me.PrivateIP)}}
	full := csr(t, template)
	cn, dns, ip := me.kubelet.cn, me.PrivateDNS, me.PrivateIP
	for name, row := range map[string]struct {
		op     string
		fields map[string]any
		names  []string // the certificate's DNS names and addresses
	}{
		"the Vault CLI, every value a string":       {"issue", map[string]any{"common_name": cn, "alt_names": dns, "ip_sans": ip, "ttl": "24h", "format": "pem"}, []string{dns, ip}},
		"the common name alone":                     {"issue", map[string]any{"common_name": cn}, nil},
		"addresses as a list in JSON":               {"issue", map[string]any{"common_name": cn, "alt_names": dns, "ip_sans": []string{ip}}, []string{dns, ip}},
		"a bundle and a PKCS 8 key":                 {"issue", map[string]any{"common_name": cn, "alt_names": dns, "format": "pem_bundle", "private_key_format": "pkcs8"}, []string{dns}},
		"a TTL as a number":                         {"issue", map[string]any{"common_name": cn, "ip_sans": ip, "ttl": 3600}, []string{ip}},
		"a CSR with all names, and the same fields": {"sign", map[string]any{"common_name": cn, "alt_names": dns, "ip_sans": ip, "csr": full}, []string{dns, ip}},
		"a CSR, lists in JSON":                      {"sign", map[string]any{"common_name": cn, "alt_names": dns, "ip_sans": []string{ip}, "csr": full, "ttl": "1h"}, []string{dns, ip}},
		"a CSR and the common name":                 {"sign", map[string]any{"common_name": cn, "csr": full}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := send(t, me.session.Client, request{path: k8s + "/" + row.op + "/" + me.kubelet.role, body: text(t, row.fields)})
			wantNames(t, me.kubelet, status, body, row.names)
		})
	}
	t.Run("the API as the Go client speaks it", func(t *testing.T) {
		if _, err := me.session.Logical().WriteWithContext(t.Context(), k8s+"/issue/"+me.proxy.role, map[string]any{"common_name": me.proxy.cn}); err != nil {
			t.Errorf("want the proxy's certificate, got %v", err)
		}
	})
}

// wantNames fails unless the answer is an allowed certificate with exactly these names.
func wantNames(t *testing.T, own allowed, status int, body []byte, names []string) {
	t.Helper()
	got, cert, err := judge(own, status, body)
	if got != harmless {
		t.Fatalf("want a certificate, got %s %d %s %v: an instance must get what it is granted", got, status, body, err)
	}
	have := slices.Clone(cert.DNSNames)
	for _, a := range cert.IPAddresses {
		have = append(have, a.String())
	}
	slices.Sort(have)
	want := slices.Sorted(slices.Values(names))
	if !slices.Equal(have, want) {
		t.Errorf("want the names %v, got %v: the certificate does not serve without them", want, have)
	}
}
