package namespace

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

func TestSetup_ActsInTheNamespaceOrRefuses(t *testing.T) {
	if !hasNamespaces {
		for _, part := range []string{world.Binary.Version, "namespace " + space, "ignores namespaces", "Nothing was written", "Unset VAULT_NAMESPACE"} {
			if !strings.Contains(refusal, part) {
				t.Errorf("the set-up must say %q, since it would have acted in the root namespace:\n%s", part, refusal)
			}
		}
		return
	}
	out, err := setUpIn(t, "/"+space+"/")
	if err != nil || !strings.HasPrefix(out, "namespace "+space+":") || !strings.Contains(out, "\n0 of ") {
		t.Errorf("a second run must name the namespace and change nothing: %v\n%s", err, out)
	}
	read, list := inRoot().Logical().ReadWithContext, inRoot().Logical().ListWithContext
	for path, in := range map[string]func(context.Context, string) (*vaultapi.Secret, error){"sys/auth": read, "sys/mounts": read, grant.PolicyFolder: list} {
		answer, err := in(t.Context(), path)
		if err != nil || answer == nil {
			t.Fatalf("reading %s: %v, %v", path, answer, err)
		}
		if text := fmt.Sprint(answer.Data); strings.Contains(text, "alice_cluster") || strings.Contains(text, "ec2-provisioner") {
			t.Errorf("the set-up in a namespace reached the root one: %s has %s", path, text)
		}
	}
}

func TestSetup_NamesAMissingNamespace(t *testing.T) {
	if !hasNamespaces {
		return // TestSetup_ActsInTheNamespaceOrRefuses: every namespace is refused there
	}
	for _, missing := range []string{"team/none", "none"} {
		out, err := setUpIn(t, missing)
		for _, part := range []string{"namespace " + missing, "no such namespace", "Nothing was written", "vault namespace create"} {
			if err == nil || !strings.Contains(out, part) {
				t.Errorf("the set-up makes no namespace and must say %q: %v\n%s", part, err, out)
			}
		}
		list, err := inRoot().Logical().ListWithContext(t.Context(), "sys/namespaces")
		if err != nil || strings.Contains(fmt.Sprint(list.Data), "none") {
			t.Errorf("the set-up made a namespace: %v, %v", list, err)
		}
	}
}

func TestDoctor_ReportsTheNamespace(t *testing.T) {
	r, c := examine(t, nil, "vault namespace")
	if !hasNamespaces {
		if c.OK || r.OK || !strings.Contains(c.Detail, "root namespace") || !strings.Contains(c.Remedy, "unset VAULT_NAMESPACE") {
			t.Errorf("the functions act in the root namespace and not in %s; the doctor must say so, got %+v", space, c)
		}
		return
	}
	for _, c := range r.Checks {
		if !c.OK {
			t.Errorf("%s: %s (%s)", c.Name, c.Detail, c.Remedy)
		}
	}
	if !strings.Contains(c.Detail, "namespace "+space) {
		t.Errorf("want the namespace named, got %+v", c)
	}
	for missing, check := range map[string]string{"team/none": "vault namespace", "team": "vault login"} {
		r, c := examine(t, map[string]string{"VAULT_NAMESPACE": missing}, check)
		if r.OK || c.OK || !strings.Contains(c.Detail, missing) || !strings.Contains(c.Remedy, "VAULT_NAMESPACE="+missing) {
			t.Errorf("in %s the check %q must fail and name it, got %+v", missing, check, c)
		}
	}
}

func TestLife_StaysInTheNamespace(t *testing.T) {
	i := launch(t)
	untouched := decoys(t, i)
	since := time.Now()
	converge(t, provisions, i, "running", "provisioned")
	made := objects(t, i)
	if len(made) != 4 {
		t.Errorf("seen %q, want policy, auth role and two PKI roles in the namespace", made)
	}
	session, err := world.Fleet.Login(t.Context(), world.AuthMount, i, "")
	if err != nil {
		t.Fatal(err)
	}
	issue := map[string]any{"common_name": "system:node:" + i.PrivateDNS, "alt_names": i.PrivateDNS, "ip_sans": i.PrivateIP}
	path := grant.IssuePath(k8s, i.ID+"-kubelet")
	if _, err := session.Logical().WriteWithContext(t.Context(), path, issue); err != nil {
		t.Errorf("the instance must get its certificate in the namespace: %v", err)
	}
	onlyIn(t, since)
	if hasNamespaces {
		for _, other := range []string{"", "team"} {
			// Not the token's look-up of itself, which OpenBao answers in every namespace.
			if _, err := session.WithNamespace(other).Logical().WriteWithContext(t.Context(), path, issue); err == nil || !strings.Contains(err.Error(), "403") {
				t.Errorf("the instance's token must be refused (403) in the namespace %q, got %v", other, err)
			}
		}
	}
	since = time.Now()
	removed(t, i)
	if left := objects(t, i); len(left) != 0 {
		t.Errorf("seen %q after the removal, want nothing", left)
	}
	if _, err := session.Logical().WriteWithContext(t.Context(), path, issue); err == nil {
		t.Error("the token works after the removal: its entity is in the namespace too")
	}
	untouched()
	onlyIn(t, since)
	loggedNamespace(t, provisions)
	loggedNamespace(t, deprovision)
}

func TestAgent_GetsItsCertificateInTheNamespace(t *testing.T) {
	i := granted(t)
	since := time.Now()
	a, err := world.NewAgent(i, lab.AgentOptions{Role: "worker"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := a.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, file := range []string{"etc/kubernetes/pki/kubelet.pem", "etc/kubernetes/pki/kube-proxy.pem", "etc/kubernetes/pki/ca.pem"} {
		text, err := a.WaitFor(ctx, file, "-----END CERTIFICATE-----")
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			t.Fatalf("%s holds no PEM", file)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil && block.Type == "CERTIFICATE" {
			t.Errorf("%s: %v", file, err)
		}
	}
	if !hasNamespaces {
		return
	}
	requests, err := world.VaultRequests(since)
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]bool{}
	for _, r := range requests {
		if r.RemoteAddr == i.PrivateIP {
			paths[r.Path] = true
			if r.Namespace != space+"/" {
				t.Errorf("Agent's %s %s was in namespace %q", r.Operation, r.Path, r.Namespace)
			}
		}
	}
	for _, path := range []string{"auth/aws/login", grant.IssuePath(k8s, i.ID+"-kubelet")} {
		if !paths[path] {
			t.Errorf("Vault's audit log must show Agent's %s, got %v", path, paths)
		}
	}
}

func TestReconcile_RepairsInTheNamespace(t *testing.T) {
	i := granted(t)
	untouched := decoys(t, i)
	since := time.Now()
	policy := grant.PolicyPath(grant.PolicyName(i.ID, "node"))
	before, err := world.Vault.Logical().ReadWithContext(t.Context(), policy)
	if err != nil || before == nil {
		t.Fatalf("reading %s: %v, %v", policy, before, err)
	}
	text := fmt.Sprint(before.Data["policy"])
	if _, err := world.Vault.Logical().WriteWithContext(t.Context(), policy, map[string]any{"policy": text + "\npath \"a\" {\n  capabilities = [\"read\"]\n}\n"}); err != nil {
		t.Fatal(err)
	}
	only := reconcile.Input{Mode: reconcile.Detect, InstanceIDs: []string{i.ID}}
	a := runReconcile(t, only)
	if a.Namespace != space || len(a.Drift) != 1 || a.Drift[0].Path != policy {
		t.Errorf("seen %+v, want one row about %s, in the namespace %s", a, policy, space)
	}
	only.Mode = reconcile.Correct
	runReconcile(t, only)
	if a := runReconcile(t, only); len(a.Drift) != 0 {
		deadline := time.Now().Add(20 * time.Second) // repairs of live instances go through provision's queue
		for only.Mode = reconcile.Detect; len(a.Drift) != 0 && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			a = runReconcile(t, only)
		}
		if len(a.Drift) != 0 {
			t.Errorf("seen %+v after the repair, want no drift", a.Drift)
		}
	}
	untouched()
	onlyIn(t, since)
	loggedNamespace(t, reconciles)
}

// It is the last test, since the deployment grants nothing afterwards.
func TestTeardown_EmptiesTheNamespace(t *testing.T) {
	i := granted(t)
	untouched := decoys(t, i)
	confirmed := reconcile.Input{Mode: reconcile.Teardown, Confirm: "lab"}
	a := runReconcile(t, confirmed)
	if a.Namespace != space || a.Summary.Corrected == 0 || a.Summary.Failed != 0 || a.Blocked {
		t.Errorf("seen %+v, want the instances removed, in the namespace %s", a, space)
	}
	all, err := world.Objects(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("seen %v, %v after the teardown, want nothing in the namespace", all, err)
	}
	untouched()
}
