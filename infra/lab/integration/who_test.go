package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/holders"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

func who(t *testing.T, names ...string) holders.Answer {
	t.Helper()
	var a holders.Answer
	question(t, world.Functions[reconcile], rec.Input{Mode: rec.Who, Names: names}, &a)
	return a
}

// held formats the holders of a name: instance, now or before, basis.
func held(a holders.Answer, name string) (out []string) {
	for _, h := range a.Holders {
		if h.Name == name {
			when := "before"
			if h.Now {
				when = "now"
			}
			out = append(out, fmt.Sprintf("%s %s %s", h.InstanceID, when, h.Basis))
		}
	}
	return slices.Compact(out)
}

// A name passes from one instance to another: both are found, with the time at which the first gave it up.
func TestWho_FindsPresentAndFormerHolders(t *testing.T) {
	profiles := map[string]string{"TEMPLATES_DIR": byName(t)}
	grants, removes := variant(t, provision, profiles), variant(t, deprovision, profiles)
	name := fmt.Sprintf("t%d.alice.example", time.Now().UnixNano())
	tags := map[string]string{"Name": name}
	first := launch(t, fleet.Spec{Role: "alice-worker", Tags: tags})
	mustBy(t, grants, first, "running", "provisioned")
	terminate(t, first)
	mustBy(t, removes, first, "terminated", "deprovisioned")
	removed := time.Now()
	second := launch(t, fleet.Spec{Role: "alice-worker", Tags: tags})
	mustBy(t, grants, second, "running", "provisioned")
	defer remove(t, second)

	a := who(t, strings.ToUpper(name), second.PrivateIP, first.PrivateIP, "nobody.alice.example")
	want := []string{second.ID + " now claim", first.ID + " before released"}
	if got := held(a, strings.ToUpper(name)); !slices.Equal(got, want) {
		t.Errorf("%s: want %q, got %q", name, want, got)
	}
	if got := held(a, second.PrivateIP); !slices.Equal(got, []string{second.ID + " now claim"}) {
		t.Errorf("%s: got %q", second.PrivateIP, got)
	}
	if got := held(a, first.PrivateIP); !slices.Contains(got, first.ID+" before released") {
		t.Errorf("%s: got %q", first.PrivateIP, got)
	}
	if got := held(a, "nobody.alice.example"); len(got) > 0 {
		t.Errorf("want no holder, got %q", got)
	}
	if !a.Complete || a.Scanned == 0 || len(a.Unread) > 0 {
		t.Errorf("want the whole ledger read, got %+v", a)
	}
	for _, h := range a.Holders {
		if h.InstanceID == first.ID && (h.Until == nil || h.Until.Sub(removed).Abs() > time.Minute) {
			t.Errorf("want the time of the release, got %+v", h)
		}
	}
	for _, i := range a.Instances {
		switch {
		case i.InstanceID == second.ID && (i.EC2 != "running" || len(i.Objects) != 4 || i.State != ledger.Active):
			t.Errorf("want the present holder with its four paths, running, got %+v", i)
		case i.InstanceID == first.ID && (i.State != ledger.Deleted || i.DeletedAt == nil || i.Account != first.AccountID):
			t.Errorf("want the former holder's tombstone, got %+v", i)
		}
	}
	var current holders.Answer
	question(t, world.Functions[reconcile], rec.Input{Mode: rec.Who, Names: []string{second.PrivateIP}, Current: true}, &current)
	if got := held(current, second.PrivateIP); !slices.Equal(got, []string{second.ID + " now claim"}) || current.Scanned != 0 || current.Complete {
		t.Errorf("want the claim alone, without reading the ledger, got %+v", current)
	}
}

// The name of an object has its instance in it. One that no record names is found in Vault.
func TestWho_FindsTheInstanceOfAnObject(t *testing.T) {
	i := provisioned(t)
	p := pathsOf(i.ID)
	door := "alice_cluster/pki/k8s/roles/" + i.ID + "-door"
	vaultSet(t, door, map[string]any{"allow_any_name": true})
	for _, name := range []string{i.ID, p.role, p.policy, "ec2-" + i.ID + "-node", p.kubelet, i.ID + "-kubelet", "alice_cluster/pki/k8s/issue/" + i.ID + "-kubelet", i.ID + "-door"} {
		a := who(t, name)
		if len(a.Holders) != 1 || a.Holders[0].InstanceID != i.ID || !a.Holders[0].Now || a.Scanned != 0 || !a.Complete {
			t.Errorf("%s: want the instance by one record, got %+v", name, a)
			continue
		}
		found := slices.ContainsFunc(a.Instances[0].Objects, func(o holders.Object) bool { return o.InVault != nil && *o.InVault })
		if !found {
			t.Errorf("%s: want it seen in Vault, got %+v", name, a.Instances[0].Objects)
		}
	}
	a := who(t, i.ID+"-door")
	if n := len(a.Instances[0].Objects); a.Instances[0].Objects[n-1].Path != door {
		t.Errorf("want the untracked role, got %+v", a.Instances[0].Objects)
	}
}

// The filter selects what Vault's audit log has of one instance, and nothing of another.
func TestWho_AuditFilterSelectsOneInstance(t *testing.T) {
	jq, err := exec.LookPath("jq")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("jq is needed")
		}
		t.Skip("there is no jq on the PATH")
	}
	i, session := withToken(t)
	other, _ := withToken(t)
	kubelet := map[string]any{"common_name": "system:node:" + i.PrivateDNS, "alt_names": i.PrivateDNS, "ip_sans": i.PrivateIP}
	issued, err := session.Logical().WriteWithContext(t.Context(), "alice_cluster/pki/k8s/issue/"+i.ID+"-kubelet", kubelet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	cert := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(cert, []byte(fmt.Sprint(issued.Data["certificate"])), 0o600); err != nil {
		t.Fatal(err)
	}
	env := servedBy(t, world.Functions[reconcile])
	out := ranWith(t, env, 0, "who", "--stack", world.Stack.Name, "--certificate", cert)
	for _, says := range []string{"certificate " + fmt.Sprint(issued.Data["serial_number"]), "all of these names: " + i.ID, "in EC2: running"} {
		if !strings.Contains(out, says) {
			t.Errorf("want %q in\n%s", says, out)
		}
	}
	_, filter, _ := strings.Cut(out, "jq -c '")
	filter, _, _ = strings.Cut(filter, "' audit.log")
	logs, err := filepath.Glob(world.AuditLog)
	if err != nil || len(logs) == 0 {
		t.Fatal(err, logs)
	}
	cmd := exec.CommandContext(t.Context(), jq, append([]string{"-c", filter}, logs...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	selected, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s\nfilter: %s", err, errs.String(), filter)
	}
	var paths []string
	for line := range strings.Lines(string(selected)) {
		var entry struct{ Operation, Path, Token string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || strings.Contains(line, other.ID) {
			t.Errorf("want entries of %s alone, got %s (%v)", i.ID, line, err)
		}
		paths = append(paths, entry.Operation+" "+entry.Path)
	}
	for _, want := range []string{
		"update auth/aws/login", "update alice_cluster/pki/k8s/issue/" + i.ID + "-kubelet", "read auth/token/lookup-self", "update " + pathsOf(i.ID).policy, "create " + pathsOf(i.ID).role,
	} {
		if !slices.Contains(paths, want) && !slices.Contains(paths, strings.Replace(want, "create", "update", 1)) && !slices.Contains(paths, strings.Replace(want, "update", "create", 1)) {
			t.Errorf("want %q among the entries\n%s", want, strings.Join(paths, "\n"))
		}
	}
}
