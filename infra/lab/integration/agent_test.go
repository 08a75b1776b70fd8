package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
)

// boot starts Vault Agent with the shipped configuration on an instance.
func boot(t *testing.T, i fleet.Instance, o lab.AgentOptions) *lab.Agent {
	t.Helper()
	a, err := world.NewAgent(i, o)
	if err != nil {
		t.Fatal(err)
	}
	labtest.CloseLater(t, a)
	if err := a.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

// certificateOf waits for a file on the instance and checks that it holds a certificate, its key and its CA.
func certificateOf(t *testing.T, a *lab.Agent, file string) *x509.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	text, err := a.WaitFor(ctx, file, "")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(text), []byte(text))
	if err != nil {
		t.Fatalf("%s: a server that reads certificate and key from this file would not start: %v", file, err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && c.IsCA {
			roots.AddCert(c)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("%s: the certificate does not chain to the CA in the file: %v", file, err)
	}
	if info, err := os.Stat(filepath.Join(a.Root, file)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: the mode is %v, %v, want 0600: the file holds a key", file, info.Mode(), err)
	}
	return cert
}

func addresses(c *x509.Certificate) []string {
	var out []string
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	slices.Sort(out)
	return out
}

func TestAgent_GetsCertificatesForEachRole(t *testing.T) {
	type want struct {
		cn       string
		names    []string
		loopback bool
		address  bool
	}
	for role, files := range map[string]map[string]want{
		"worker": {
			"etc/kubernetes/pki/kubelet.pem":    {cn: "system:node:<own>", names: []string{"<own>"}, address: true},
			"etc/kubernetes/pki/kube-proxy.pem": {cn: "system:kube-proxy"},
		},
		"master": {
			"etc/kubernetes/pki/apiserver.pem": {cn: "<own>", address: true, loopback: true,
				names: []string{"<own>", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"}},
			"etc/kubernetes/pki/apiserver-etcd-client.pem": {cn: "<own>", names: []string{"<own>"}},
			"etc/kubernetes/pki/controller-manager.pem":    {cn: "system:kube-controller-manager"},
			"etc/kubernetes/pki/scheduler.pem":             {cn: "system:kube-scheduler"},
		},
		"etcd": {
			"etc/etcd/pki/server.pem": {cn: "<own>", names: []string{"<own>", "localhost"}, address: true, loopback: true},
			"etc/etcd/pki/peer.pem":   {cn: "<own>", names: []string{"<own>"}, address: true},
		},
	} {
		t.Run(role, func(t *testing.T) {
			i := launch(t, fleet.Spec{Role: "alice-" + role})
			must(t, provision, i, "running", "provisioned")
			a := boot(t, i, lab.AgentOptions{Role: role})
			for file, w := range files {
				cert := certificateOf(t, a, file)
				own := strings.NewReplacer("<own>", i.PrivateDNS)
				var names, ips []string
				for _, n := range w.names {
					names = append(names, own.Replace(n))
				}
				slices.Sort(names)
				got := slices.Sorted(slices.Values(cert.DNSNames))
				if w.address {
					ips = append(ips, i.PrivateIP)
				}
				if w.loopback {
					ips = append(ips, "127.0.0.1")
				}
				if role == "master" && w.loopback {
					ips = append(ips, "10.254.0.1")
				}
				slices.Sort(ips)
				if cert.Subject.CommonName != own.Replace(w.cn) || !slices.Equal(got, names) || !slices.Equal(addresses(cert), ips) {
					t.Errorf("%s: for %s with %q and %q, want %s with %q and %q", file, cert.Subject.CommonName, got, addresses(cert), own.Replace(w.cn), names, ips)
				}
			}
			folder := map[string]string{"etcd": "etc/etcd/pki"}[role]
			if folder == "" {
				folder = "etc/kubernetes/pki"
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := a.WaitFor(ctx, folder+"/ca.pem", ""); err != nil {
				t.Error(err)
			}
			if role == "worker" {
				if _, err := a.WaitFor(ctx, "run/systemctl", "--no-block try-reload-or-restart kubelet.service"); err != nil {
					t.Errorf("want kubelet reloaded for its certificate: %v", err)
				}
			}
			if n := a.Metadata.Refused(); n > 0 {
				t.Errorf("%d requests to the metadata service were of version 1", n)
			}
		})
	}
}

// The nonce is in a folder named after the instance ID: a reboot finds it, an instance made from an image of this disk does
// not.
func TestAgent_NonceSurvivesRebootOnly(t *testing.T) {
	i := provisioned(t)
	a := boot(t, i, lab.AgentOptions{Role: "worker"})
	before := certificateOf(t, a, "etc/kubernetes/pki/kubelet.pem")
	nonce := filepath.Join(a.Root, "var/lib/vault-agent", i.ID, "nonce")
	first, err := os.ReadFile(nonce)
	if err != nil || len(first) != 64 {
		t.Fatalf("want 32 random bytes in hex stored, got %q, %v", first, err)
	}
	reboot := func() *x509.Certificate {
		t.Helper()
		if err := a.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := a.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		return certificateOf(t, a, "etc/kubernetes/pki/kubelet.pem")
	}
	if again := reboot(); !again.Equal(before) {
		t.Error("a reboot requested another certificate though the one on disk is valid")
	}
	if err := os.Remove(filepath.Join(a.Root, "etc/kubernetes/pki/kubelet.pem")); err != nil {
		t.Fatal(err)
	}
	if again := reboot(); again.Equal(before) {
		t.Error("the agent did not request the removed certificate again")
	}
	if second, _ := os.ReadFile(nonce); string(second) != string(first) {
		t.Error("a reboot made another nonce: Vault would refuse it")
	}
	if err := errors.Join(a.Stop(), os.RemoveAll(filepath.Dir(nonce)), os.Remove(filepath.Join(a.Root, "etc/kubernetes/pki/kubelet.pem"))); err != nil {
		t.Fatal(err)
	}
	if err := a.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(a.Log(), "nonce mismatch"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("want a login without the nonce refused, got\n%s", a.Log())
		}
	}
}

func TestAgent_RetriesUntilItsRoleExists(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	a := boot(t, i, lab.AgentOptions{Role: "worker"})
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(a.Log(), "error authenticating"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("want a first login that fails because the role is missing, got\n%s", a.Log())
		}
	}
	must(t, provision, i, "running", "provisioned")
	certificateOf(t, a, "etc/kubernetes/pki/kubelet.pem")
}

func TestAgent_LogsInByTypeIAM(t *testing.T) {
	function := variant(t, provision, map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "type: ec2", "type: iam")})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, function, i, "running", "provisioned")
	a := boot(t, i, lab.AgentOptions{Role: "worker", IAM: true})
	if cert := certificateOf(t, a, "etc/kubernetes/pki/kubelet.pem"); cert.Subject.CommonName != "system:node:"+i.PrivateDNS {
		t.Errorf("got a certificate for %s", cert.Subject.CommonName)
	}
	if kept, err := os.ReadDir(filepath.Join(a.Root, "var/lib/vault-agent")); err != nil || len(kept) > 0 {
		t.Errorf("want no nonce stored for this type of login, got %v, %v", kept, err)
	}
}
