package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// withoutBounds returns the profiles of worker-by-tag.json: a tag is the FQDN, and the kubelet's certificate has no max_ttl.
func withoutBounds(t *testing.T) string {
	t.Helper()
	return edited(t,
		[3]string{"worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, `fqdn: '{{ .Tag "Name" }}'`},
		[3]string{"worker/kubelet.json.tmpl", "  \"max_ttl\": \"720h\",\n", ""})
}

// A profile that breaks a new rule keeps its grants and makes no new ones until it is fixed. Every function reports the rule.
func TestUpgrade_BarredProfileKeepsItsGrants(t *testing.T) {
	env := map[string]string{"TEMPLATES_DIR": withoutBounds(t)}
	granting, comparing := variant(t, provision, env), variant(t, reconcile, env)
	spec := func(name string) fleet.Spec {
		return fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": fmt.Sprintf("%s-%d.alice.example", name, time.Now().UnixNano())}}
	}
	s := before(t, "worker-by-tag.json", launch(t, spec("old")))
	was := grantFields(t, s.Instance)
	broken := []string{"fqdn_suffixes: is required", "max_ttl is required"}

	c := &contention{t: t}
	late := launch(t, spec("late"))
	c.refuses("grant by a barred profile", granting, late, broken...)
	if a := bare(t, granting, fleet.Event(s.Instance, "running", time.Now())); a.Kind != "refuse" || !strings.Contains(a.Error, broken[0]) {
		t.Errorf("want its own start refused as well, got %+v", a)
	}
	in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{s.ID, late.ID}}
	a := runReconcile(t, comparing, in)
	reasons := map[string]rec.Reason{}
	for _, d := range a.Drift {
		reasons[d.InstanceID] = d.Reason
		for _, rule := range broken {
			if !strings.Contains(d.Error, rule) || d.Action != rec.None || d.Object != rec.KindRecord {
				t.Errorf("want a row that names %q and has no action, got %+v", rule, d)
			}
		}
	}
	if a.Blocked || len(a.Drift) != 2 || reasons[s.ID] != rec.Changed || reasons[late.ID] != rec.Missing || a.Summary != (rec.Summary{Changed: 1, Missing: 1}) {
		t.Errorf("want one row for the old worker and one for the new, got %+v", a)
	}
	if _, checks := examine(t, comparing); checks["profile rules"].OK || !strings.Contains(checks["profile rules"].Detail, broken[0]) || !strings.Contains(checks["profile rules"].Detail, worker) {
		t.Errorf("want the doctor to name the profile and the rule, got %+v", checks["profile rules"])
	}
	logged(t, granting, `"Refused":1`)
	logged(t, granting, "a profile breaks a rule")
	logged(t, comparing, `"DriftChanged":1`)
	if got := grantFields(t, s.Instance); fmt.Sprint(got) != fmt.Sprint(was) {
		t.Errorf("want the grant unchanged, got %v", got)
	}
	s.works(t)
	s.logIn(t)
	s.works(t)

	env["TEMPLATES_DIR"] = edited(t, [3]string{"worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"Name\" }}'\nfqdn_suffixes: [alice.example]"})
	fixed := variant(t, reconcile, env)
	if _, checks := examine(t, fixed); !checks["profile rules"].OK {
		t.Errorf("got %+v", checks["profile rules"])
	}
	if a := runReconcile(t, fixed, in); a.Summary.Failed > 0 || a.Summary.Corrected == 0 || a.Blocked {
		t.Fatalf("got %+v", a)
	}
	if a := runReconcile(t, fixed, in); len(a.Drift) > 0 {
		t.Errorf("want no drift once the profile is fixed, got %+v", a)
	}
	s.works(t)
	wantItems(t, s)
	// Its former certificate is valid for as long as the mount allows. A former name stays held for that time.
	longest, _ := vaultRead(t, "sys/mounts/"+k8s+"/tune")["max_lease_ttl"].(json.Number)
	if r := recordOf(t, s.Instance); r.LastError != "" || fmt.Sprint(vaultRead(t, pathsOf(s.ID).kubelet)["max_ttl"]) != "2592000" || fmt.Sprint(r.CertificateTTL) != longest.String() {
		t.Errorf("want a bounded lifetime, no error and a certificate TTL of %s s recorded, got %+v", longest, r)
	}
	remove(t, s.Instance)
	s.isCut(t)
}

// Of two live instances with one address, one is refused and keeps its grant until the other is gone.
func TestUpgrade_SharedAddressKeepsBothGrants(t *testing.T) {
	comparing := variant(t, reconcile, nil)
	first, second := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"})
	assign(t, second, first.PrivateIP)
	both := []oldWorker{before(t, "worker.json", first), before(t, "worker-second-address.json", second, "{other}", first.PrivateIP)}
	in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{first.ID, second.ID}}
	if a := runReconcile(t, comparing, in); a.Blocked || a.Summary.Corrected == 0 || a.Summary.Failed == 0 {
		t.Errorf("want one carried over and one refused, got %+v", a)
	}
	refusals := 0
	for n, s := range both {
		s.works(t)
		s.logIn(t)
		s.works(t)
		r, other := recordOf(t, s.Instance), both[1-n]
		if r.State != ledger.Active || len(r.Objects) != 4 {
			t.Errorf("want both active, got %+v", r)
		}
		if r.LastError == "" {
			continue
		}
		refusals++
		if !strings.Contains(r.LastError, first.PrivateIP) || !strings.Contains(r.LastError, other.ID) {
			t.Errorf("want the address and its holder named, got %q", r.LastError)
		}
		a := runReconcile(t, comparing, in)
		if a.Summary.Conflicting != 1 || a.Summary.Corrected > 0 || !strings.Contains(a.Drift[0].Error, other.ID) {
			t.Errorf("want a row that names the holder, got %+v", a)
		}
		if a := bare(t, variant(t, provision, nil), fleet.Event(s.Instance, "running", time.Now())); a.Kind != "refuse" || !strings.Contains(a.Error, other.ID) {
			t.Errorf("want its own event refused, got %+v", a)
		}
		s.works(t)
		remove(t, other.Instance)
		other.isCut(t)
		s.works(t)
		if a := runReconcile(t, comparing, in); a.Summary.Failed > 0 || a.Summary.Corrected == 0 {
			t.Errorf("want the instance carried over once the other is gone, got %+v", a)
		}
		if a := runReconcile(t, comparing, in); len(a.Drift) > 0 || recordOf(t, s.Instance).LastError != "" {
			t.Errorf("got %+v", a)
		}
		s.works(t)
		break
	}
	if refusals != 1 {
		t.Errorf("want one of the two refused, got %d", refusals)
	}
}
