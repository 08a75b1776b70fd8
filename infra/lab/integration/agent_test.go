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
	"strconv"
	"strings"
	"syscall"
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
				if _, err := a.WaitFor(ctx, "run/vault-agent/systemctl", "--no-block try-reload-or-restart kubelet.service"); err != nil {
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

func TestAgent_RunsUnderTheUnitsRules(t *testing.T) {
	a := boot(t, provisioned(t), lab.AgentOptions{Role: "worker"})
	if !a.UnderRules() {
		t.Skip("not root on Linux: Vault Agent is tested without the unit's capabilities and mounts")
	}
	certificateOf(t, a, "etc/kubernetes/pki/kubelet.pem")
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(a.PID()), "status"))
	if err != nil {
		t.Fatal(err)
	}
	// Bits 0 chown, 1 dac_override, 3 fowner, 14 ipc_lock of linux/capability.h.
	for _, want := range []string{"CapBnd:\t000000000000400b\n", "CapEff:\t000000000000400b\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("want %q in Agent's status, got\n%s", want, status)
		}
	}
	folder, err := filepath.EvalSymlinks(a.Root) // a link would lead out of the mount namespace
	if err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join("/proc", strconv.Itoa(a.PID()), "root", folder)
	if err := os.WriteFile(filepath.Join(inside, "etc/vault-agent/agent.hcl"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing Agent's own settings in its mount namespace: got %v, want a read-only file system", err)
	}
}

// The metadata service may have another name and other addresses than EC2, by which the instance was granted its own.
func TestAgent_AsksForWhatWasGranted(t *testing.T) {
	for name, metadata := range map[string]fleet.MetadataOptions{
		"a domain of the VPC's own": {Domain: "corp.example"},
		"metadata by IPv6 only":     {IPv6Only: true},
		"no name in the metadata":   {Missing: []string{"local-hostname"}},
	} {
		t.Run(name, func(t *testing.T) {
			i := provisioned(t)
			seen := i
			if metadata.IPv6Only {
				seen.IPv6s = []string{"2001:db8::4"}
			}
			cert := certificateOf(t, boot(t, seen, lab.AgentOptions{Role: "worker", Metadata: metadata}), "etc/kubernetes/pki/kubelet.pem")
			if !slices.Equal(cert.DNSNames, []string{i.PrivateDNS}) || !slices.Equal(addresses(cert), []string{i.PrivateIP}) {
				t.Errorf("got a certificate with %q and %q, want what was granted: %q and %q", cert.DNSNames, addresses(cert), i.PrivateDNS, i.PrivateIP)
			}
		})
	}
}

// Vault compares the address at the login already. The balancer's address is not the instance's.
func TestAgent_IsRefusedBehindABalancer(t *testing.T) {
	const balancer = "127.18.0.1"
	a := boot(t, provisioned(t), lab.AgentOptions{Role: "worker", SeenAs: balancer})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if log, err := a.WaitForLog(ctx, "/v1/auth/"+world.AuthMount+"/login", 1); err != nil || !strings.Contains(log, "Code: 403") || !strings.Contains(log, "* permission denied") {
		t.Fatalf("got %v, want the login refused with 403 and no reason, in\n%s", err, log)
	}
	unbound := variant(t, provision, map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "bind_token_to_instance_ip: true", "bind_token_to_instance_ip: false")})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, unbound, i, "running", "provisioned")
	certificateOf(t, boot(t, i, lab.AgentOptions{Role: "worker", SeenAs: balancer}), "etc/kubernetes/pki/kubelet.pem")
}

// Agent's timers are monotonic. They end at once after a freeze of the process, where that clock goes on. They do not after a
// freeze of the machine, where it stands still: the restart by vault-agent-resume.timer replaces what has run out.
func TestAgent_RenewsAfterAFreeze(t *testing.T) {
	function := variant(t, provision, map[string]string{"TEMPLATES_DIR": edited(t,
		[3]string{"worker/kubelet.json.tmpl", `"max_ttl": "720h"`, `"max_ttl": "12s"`},
		[3]string{"worker/profile.yaml", "token_ttl: 1h, token_max_ttl: 24h", "token_ttl: 10s, token_max_ttl: 24h"})})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, function, i, "running", "provisioned")
	a := boot(t, i, lab.AgentOptions{Role: "worker"})
	const file = "etc/kubernetes/pki/kubelet.pem"
	certificateOf(t, a, file)
	onDisk := func() *x509.Certificate {
		t.Helper()
		text, err := a.WaitFor(t.Context(), file, "BEGIN CERTIFICATE")
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(text))
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	expired := func(doing string, act func() error) *x509.Certificate {
		t.Helper()
		if err := act(); err != nil {
			t.Fatalf("%s Agent: %v", doing, err)
		}
		cert := onDisk()
		time.Sleep(time.Until(cert.NotAfter) + time.Second)
		if !onDisk().Equal(cert) {
			t.Fatalf("%s Agent: it renewed the certificate meanwhile", doing)
		}
		return cert
	}
	renewed := func(after string, old *x509.Certificate) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if cert := onDisk(); !cert.Equal(old) && time.Now().Before(cert.NotAfter) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("after %s: the certificate that ended at %s is still on disk\n%s", after, old.NotAfter, a.Log())
			}
		}
	}
	old := expired("freezing", a.Freeze)
	if err := a.Thaw(); err != nil {
		t.Fatal(err)
	}
	renewed("a freeze of the process", old)
	old = expired("stopping", a.Stop)
	if err := a.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	renewed("a restart", old)
}
