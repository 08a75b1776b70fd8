package reconcile

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// withOutputs returns the built-in worker's profile with further outputs and lines of its own.
func withOutputs(t *testing.T, outputs, lines string) *grant.Set {
	t.Helper()
	files := fstest.MapFS{
		"worker/sshd.json.tmpl": {Data: []byte(`{"ttl": "24h", "max_ttl": "48h"}`)},
		"worker/seed.json.tmpl": {Data: []byte(`{"name": "{{ .FQDN }}"}`)},
	}
	for _, name := range []string{"profile.yaml", "policy.hcl.tmpl", "kubelet.json.tmpl", "kube-proxy.json.tmpl"} {
		text, err := fs.ReadFile(templates.FS, "worker/"+name)
		if err != nil {
			t.Fatal(err)
		}
		with := strings.Replace(string(text), "outputs:\n", "outputs:\n"+outputs, 1)
		if name == "profile.yaml" {
			with += lines
		}
		if strings.Contains(outputs, "sshd") {
			with = strings.Replace(with, "{{ identityAccess }}", "{{ identityAccess }}\n{{ sshAccess \"sshd\" }}", 1)
		}
		files["worker/"+name] = &fstest.MapFile{Data: []byte(with)}
	}
	set, err := grant.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const (
	sshAndSeed = "  - {name: sshd, type: ssh-role, path: hosts/roles, template: sshd.json.tmpl}\n  - {name: seed, type: generic, path: kv/nodes, template: seed.json.tmpl}\n"
	seedAlone  = "  - {name: seed, type: generic, path: kv/nodes, template: seed.json.tmpl}\n"
)

// newWorldBy is newWorld with other profiles.
func newWorldBy(t *testing.T, set *grant.Set, n int) *world {
	t.Helper()
	w := newWorld(t, 0)
	w.profiles = set
	for i := range n {
		w.provision(w.launch(worker(i)))
	}
	return w
}

// fieldOf is a field of each kind's object that is edited by hand.
func fieldOf(kind grant.Kind) string {
	switch kind {
	case grant.KindPolicy:
		return "policy"
	case grant.KindAuthRole:
		return "token_ttl"
	case grant.KindGeneric:
		return "name"
	case grant.KindPKIRole, grant.KindSSHRole:
	}
	return "max_ttl"
}

// pathOfKind returns the path of the first instance's object of a kind.
func (w *world) pathOfKind(kind grant.Kind) string {
	for _, o := range w.Records[id(0)].Objects {
		if o.Kind == kind {
			return o.Path
		}
	}
	w.t.Fatalf("the grant has no %s", kind)
	return ""
}

// Each kind in each mode, edited or deleted by hand, in a run that repairs.
func TestModes_DecideAboutRowsAndRepairs(t *testing.T) {
	for _, kind := range []grant.Kind{grant.KindPolicy, grant.KindPKIRole, grant.KindSSHRole, grant.KindAuthRole, grant.KindGeneric} {
		for _, mode := range []grant.DriftMode{grant.DriftCorrect, grant.DriftDetect, grant.DriftIgnore} {
			for _, reason := range []Reason{Changed, Missing} {
				t.Run(fmt.Sprint(kind, " ", mode, " ", reason), func(t *testing.T) {
					w := newWorldBy(t, withOutputs(t, sshAndSeed, fmt.Sprintf("reconcile: {%s: %s}\n", kind, mode)), 2)
					path := w.pathOfKind(kind)
					if reason == Missing {
						delete(w.Objects, path)
					} else {
						value := any(int64(7))
						if kind == grant.KindPolicy { // with its marker
							value = fmt.Sprint(w.Objects[path]["policy"], "# by hand\npath \"auth/token/lookup-self\" { capabilities = [\"read\"] }\n")
						}
						w.loosen(path, fieldOf(kind), value)
					}
					spoiled := fmt.Sprint(w.Objects[path])
					for _, in := range []Input{{Mode: Detect}, {Mode: Correct}} {
						a := w.reconcile(in)
						isShown := len(a.Drift) == 1 && a.Drift[0].Path == path && a.Drift[0].Reason == reason
						acts := isShown && a.Drift[0].Action != None
						switch mode {
						case grant.DriftCorrect:
							if !acts || (in.Mode == Correct) != (a.Summary.Corrected == 1) {
								t.Errorf("%s: want it repaired, got %+v", in.Mode, a)
							}
						case grant.DriftDetect:
							if !isShown || acts || a.Summary.Corrected+a.Summary.Failed > 0 || !strings.Contains(a.Drift[0].Error, "alice_cluster-worker only detects") || fmt.Sprint(w.Objects[path]) != spoiled {
								t.Errorf("%s: want it shown and left, with the reason, got %+v", in.Mode, a)
							}
						case grant.DriftIgnore:
							if len(a.Drift) > 0 || a.Touched != nil || fmt.Sprint(w.Objects[path]) != spoiled {
								t.Errorf("%s: want it neither shown nor repaired, got %+v", in.Mode, a)
							}
						}
					}
				})
			}
		}
	}
}

const allSoft = "reconcile: {policy: ignore, pki-role: ignore, auth-role: ignore, generic: ignore}\n"

// No mode softens a removal, an orphan, a conflict or the record's own drift.
func TestModes_SoftenNothingElse(t *testing.T) {
	w := newWorldBy(t, withOutputs(t, seedAlone, allSoft), 8)
	policy := func(n int) string { return grant.PolicyPath(grant.PolicyName(id(n), "node")) }
	w.terminate(0)
	w.launch(noRole(worker(1)))
	w.loosen(policy(2), "policy", grant.Marker{Deployment: "another", InstanceID: id(2), Profile: "a-b"}.String())
	stale := grant.PolicyPath(grant.PolicyName(id(3), "old"))
	w.Objects[stale] = map[string]any{"policy": grant.Marker{Deployment: "vault-ec2", InstanceID: id(3), Profile: "a-b"}.String()}
	w.edit(id(4), func(r *ledger.Record) { r.State = ledger.Deprovisioning })
	w.edit(id(5), func(r *ledger.Record) {
		r.Objects = append(r.Objects, ledger.Object{Kind: grant.KindPolicy, Path: grant.PolicyPath(grant.PolicyName(id(5), "dropped"))})
	})
	delete(w.Claims, ledger.Name{Under: "alice_cluster", Text: w.Records[id(6)].FQDN})
	a := w.reconcile(Input{Mode: Detect})
	got := map[string]string{}
	for _, d := range a.Drift {
		got[d.InstanceID] += fmt.Sprint(d.Object, " ", d.Reason, " ", d.Action, ";")
	}
	for n, want := range []string{"record orphaned delete;", "record changed delete;", "policy conflicting none;", "policy orphaned delete;", "record changed update;", "policy orphaned delete;", "record changed update;", ""} {
		if got[id(n)] != want {
			t.Errorf("instance %d: want %q, got %q", n, want, got[id(n)])
		}
	}
	a = w.reconcile(Input{Mode: Correct, Force: true})
	if a.Summary.Failed > 0 || a.Summary.Corrected != 6 {
		t.Errorf("want all but the conflict repaired, got %+v", a)
	}
	for path := range w.Objects {
		if strings.Contains(path, id(0)) || strings.Contains(path, id(1)) || path == stale {
			t.Errorf("%s is left", path)
		}
	}
}

// Detected drift must not hide that the record has another name, or a claim too few.
func TestModes_DetectedDriftHidesNoRecord(t *testing.T) {
	w := newWorldBy(t, withOutputs(t, seedAlone, "reconcile: {generic: detect}\n"), 1)
	w.loosen(w.pathOfKind(grant.KindGeneric), "name", "by hand")
	w.edit(id(0), func(r *ledger.Record) { r.FQDN = "other.ec2.internal" })
	a := w.reconcile(Input{Mode: Correct})
	if a.Summary != (Summary{Changed: 2, Corrected: 1}) || w.Records[id(0)].FQDN == "other.ec2.internal" {
		t.Errorf("want the record repaired, got %+v", a)
	}
	if got := w.Objects[w.pathOfKind(grant.KindGeneric)]["name"]; got != "by hand" {
		t.Errorf("want the object left, got %v", got)
	}
}

// A changed template is rolled out, whatever the mode.
func TestModes_ChangedGrantIsRolledOut(t *testing.T) {
	w := newWorldBy(t, withOutputs(t, seedAlone, allSoft), 1)
	w.launch(func() facts.Instance {
		f := worker(0)
		f.PrivateDNSName = "ip-10-9-9-9.ec2.internal"
		return f
	}())
	a := w.reconcile(Input{Mode: Correct})
	if seed := w.Objects[w.pathOfKind(grant.KindGeneric)]; a.Summary.Corrected == 0 || a.Summary.Failed > 0 || seed["name"] != "ip-10-9-9-9.ec2.internal" {
		t.Errorf("want the new name written everywhere, got %v, %+v", seed, a)
	}
	if a := w.reconcile(Input{Mode: Detect}); len(a.Drift) > 0 {
		t.Errorf("want no drift left, got %+v", a.Drift)
	}
}

func TestModes_NamesOnlyShowsDetectedAlone(t *testing.T) {
	for mode, want := range map[string]int{"correct": 1, "detect": 1, "ignore": 0} {
		w := newWorldBy(t, withOutputs(t, seedAlone, "reconcile: {generic: "+mode+"}\n"), 2)
		delete(w.Objects, w.pathOfKind(grant.KindGeneric))
		if a := w.reconcile(Input{Mode: Detect, NamesOnly: true}); len(a.Drift) != want {
			t.Errorf("%s: want %d rows, got %+v", mode, want, a.Drift)
		}
	}
}

func TestExplain_ShowsModesAndWhatTheyLeave(t *testing.T) {
	w := newWorldBy(t, withOutputs(t, seedAlone, "reconcile: {generic: detect, auth-role: ignore}\n"), 1)
	w.loosen(w.pathOfKind(grant.KindGeneric), "name", "by hand")
	e := w.explain()
	if e.Status != Drifted || e.OK || !strings.Contains(e.Summary, "only detects") || !strings.Contains(e.Next, "change reconcile") || strings.Contains(e.Next, "--mode correct") {
		t.Errorf("want a verdict that promises no repair, got %+v", e.Verdict)
	}
	if e.Grant == nil || len(e.Grant.Modes) != 2 || e.Grant.Modes[grant.KindAuthRole] != grant.DriftIgnore {
		t.Errorf("want both modes, got %+v", e.Grant)
	}
}
