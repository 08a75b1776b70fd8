package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// many is the number of certificates that an attacker gets to delay its own removal.
const many = 300

// leasing holds the functions of a deployment that leases and revokes certificates. A tag names its workers.
type leasing struct{ granting, removing, comparing *sandbox.Function }

func newLeasing(t *testing.T) leasing {
	t.Helper()
	setUp(t, "-revoke-certificates")
	env := map[string]string{"REVOKE_CERTIFICATES": "true", "TEMPLATES_DIR": edited(t,
		[3]string{"worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"Name\" }}'\nfqdn_suffixes: [alice.example]"},
		[3]string{"worker/kubelet.json.tmpl", `"key_type"`, `"generate_lease": true, "key_type"`})}
	return leasing{variant(t, provision, env), variant(t, deprovision, env), variant(t, reconcile, env)}
}

// holder is a worker with certificates.
type holder struct {
	fleet.Instance
	session *fleet.Session
	serials []string
}

// holds grants a worker and gets n certificates for it, 12 at a time.
func (l leasing) holds(t *testing.T, n int) holder {
	t.Helper()
	h := holder{Instance: launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": fmt.Sprintf("holder-%d.alice.example", time.Now().UnixNano())}})}
	mustBy(t, l.granting, h.Instance, "running", "provisioned")
	h.session = login(t, h.Instance)
	var group sync.WaitGroup
	serials := make([]string, n)
	for worker := range 12 {
		group.Go(func() {
			for i := worker; i < n; i += 12 {
				out, err := h.session.Logical().WriteWithContext(t.Context(), k8s+"/issue/"+h.ID+"-kubelet", map[string]any{"common_name": "system:node:" + h.Tags["Name"]})
				if err != nil {
					t.Errorf("certificate %d: %v", i, err)
					return
				}
				serials[i] = certificate(t, fmt.Sprint(out.Data["certificate"])).SerialNumber.String()
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	h.serials = serials
	return h
}

// revoked waits until every certificate of the holder is on the CRL: Vault revokes in the background.
func (h holder) revoked(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		on, left := onCRL(t), 0
		for _, serial := range h.serials {
			if !on[serial] {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d certificates are not on the CRL: their keys still pass for the instance", left, len(h.serials))
		}
	}
}

// revoking returns the prefixes that the holder's tombstone lists for revocation.
func (h holder) revoking(t *testing.T) []string {
	t.Helper()
	return recordOf(t, h.Instance).Revoking
}

// onRevocation plays a fault on each call that revokes and returns the number of such calls.
func onRevocation(t *testing.T, fault func() *tap.Fault) (calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	world.Taps.Vault.SetFault(func(c tap.Call) *tap.Fault {
		if !strings.Contains(c.Path, "sys/leases/revoke-prefix/") {
			return nil
		}
		calls.Add(1)
		return fault()
	})
	t.Cleanup(func() { world.Taps.Vault.SetFault(nil) })
	return calls
}

func unavailable() *tap.Fault {
	return &tap.Fault{Status: http.StatusServiceUnavailable, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"errors":["try later"]}`)}
}

func TestRevocation_NeverDelaysRemoval(t *testing.T) {
	l := newLeasing(t)

	t.Run("one run, however many certificates", func(t *testing.T) {
		// The first removal, of one certificate, starts the process.
		took, calls := [3]time.Duration{}, [3]int{}
		var last holder
		for i, n := range []int{1, 1, many} {
			last = l.holds(t, n)
			terminate(t, last.Instance)
			world.Taps.Vault.Reset()
			begun := time.Now()
			again, _ := labtest.Deliver(t, l.removing, fleet.Event(last.Instance, "terminated", time.Now()))
			took[i], calls[i] = time.Since(begun), vaultCalls("")
			if len(again) > 0 || len(last.revoking(t)) > 0 {
				t.Fatalf("%d certificates: want the removal done by one run, got %q still to revoke\n%s", n, last.revoking(t), lastOf(l.removing.Logs()))
			}
			wantGone(t, last.Instance, last.session)
		}
		t.Logf("removal with 1 certificate: %s, %d calls; with %d: %s, %d calls", took[1].Round(time.Millisecond), calls[1], many, took[2].Round(time.Millisecond), calls[2])
		if calls[2] != calls[1] || took[2] > took[1]+3*time.Second {
			t.Errorf("want no more calls and no more time for %d certificates than for one, got %v, %v", many, calls, took)
		}
		last.revoked(t)
	})

	for name, fault := range map[string]func() *tap.Fault{
		"Vault does not revoke":               unavailable,
		"Vault takes longer than a call may":  func() *tap.Fault { return &tap.Fault{Delay: 12 * time.Second, CutBefore: true} },
		"the answer of the revocation is cut": func() *tap.Fault { return &tap.Fault{CutAfter: true} },
	} {
		t.Run(name, func(t *testing.T) {
			h := l.holds(t, 20)
			as := &autoScaling{state: "Terminating:Wait"}
			as.install(t)
			struck := onRevocation(t, fault)
			hook := hookEvent(h.Instance, "vault-identity-gone", "TERMINATING")
			again, _ := labtest.Deliver(t, l.removing, hook)
			if !slices.Equal(again, []int{0}) || struck.Load() == 0 {
				t.Fatalf("want the message back only for the certificates, got %v after %d calls\n%s", again, struck.Load(), lastOf(l.removing.Logs()))
			}
			wantGone(t, h.Instance, h.session)
			if got, want := hookCalls(), []string{"CompleteLifecycleAction vault-identity-gone a-token " + h.ID + " CONTINUE"}; !slices.Equal(got, want) {
				t.Errorf("want Auto Scaling to continue, got %q", got)
			}
			if len(h.revoking(t)) == 0 {
				t.Error("want the tombstone to list the prefixes left to revoke")
			}
			world.Taps.Vault.SetFault(nil)
			as.over = true
			if again, _ := labtest.Deliver(t, l.removing, hook); len(again) > 0 || len(h.revoking(t)) > 0 {
				t.Errorf("want the next delivery to finish, got %v, %q\n%s", again, h.revoking(t), lastOf(l.removing.Logs()))
			}
			h.revoked(t)
		})
	}

	t.Run("a take-over", func(t *testing.T) {
		h := l.holds(t, many)
		terminate(t, h.Instance) // its event is lost
		next := launch(t, fleet.Spec{Role: "alice-worker", Tags: h.Tags})
		onRevocation(t, unavailable)
		if a := runReconcile(t, l.comparing, rec.Input{Mode: rec.Correct, InstanceIDs: []string{next.ID}}); a.Summary.Corrected != 1 || a.Summary.Failed > 0 {
			t.Fatalf("want the name taken over in one run, got %+v\n%s", a, lastOf(l.comparing.Logs()))
		}
		if got := ofGrant(objects(t, next)); !slices.Equal(got, grantOf(next.ID)) {
			t.Errorf("want the successor's whole grant, got %q", got)
		}
		wantGone(t, h.Instance, h.session)
		if len(h.revoking(t)) == 0 {
			t.Error("want the holder's tombstone to list the prefixes left to revoke")
		}
		world.Taps.Vault.SetFault(nil)
		l.reconcileFinishes(t, h)
	})

	for name, finish := range map[string]func(*testing.T, holder){
		"killed before the revocation, the next event": func(t *testing.T, h holder) {
			if again, _ := labtest.Deliver(t, l.removing, fleet.Event(h.Instance, "terminated", time.Now())); len(again) > 0 || len(h.revoking(t)) > 0 {
				t.Errorf("want the next delivery to finish, got %v, %q\n%s", again, h.revoking(t), lastOf(l.removing.Logs()))
			}
		},
		"killed before the revocation, reconcile": l.reconcileFinishes,
	} {
		t.Run(name, func(t *testing.T) {
			h := l.holds(t, 20)
			terminate(t, h.Instance)
			var kill sync.Once
			onRevocation(t, func() *tap.Fault {
				kill.Do(func() {
					if err := l.removing.Kill(); err != nil {
						t.Error(err)
					}
				})
				return &tap.Fault{CutBefore: true}
			})
			again, result := labtest.Deliver(t, l.removing, fleet.Event(h.Instance, "terminated", time.Now()))
			world.Taps.Vault.SetFault(nil)
			if !slices.Equal(again, []int{0}) || result.ErrorType != "Runtime.ExitError" {
				t.Fatalf("want the process killed between the last write and the revocation, got %+v", result)
			}
			wantGone(t, h.Instance, h.session)
			if len(h.revoking(t)) == 0 {
				t.Fatal("want the tombstone to list the prefixes left to revoke")
			}
			finish(t, h)
			h.revoked(t)
		})
	}
}

// reconcileFinishes lets reconcile find a tombstone with prefixes left to revoke, and finish it.
func (l leasing) reconcileFinishes(t *testing.T, h holder) {
	t.Helper()
	in := rec.Input{Mode: rec.Detect, InstanceIDs: []string{h.ID}}
	want := []string{"record orphaned delete instance#" + h.ID}
	if a := runReconcile(t, l.comparing, in); !slices.Equal(rows(a), want) || !strings.Contains(a.Drift[0].Diff, "not all revoked") {
		text, _ := json.Marshal(a)
		t.Fatalf("want %q with the prefixes left, got %s", want, text)
	}
	in.Mode = rec.Correct
	if a := runReconcile(t, l.comparing, in); a.Summary.Corrected != 1 || len(h.revoking(t)) > 0 {
		t.Errorf("want it finished, got %+v and %q", a, h.revoking(t))
	}
	h.revoked(t)
	if a := runReconcile(t, l.comparing, in); len(a.Drift) > 0 {
		t.Errorf("want no drift left, got %+v", a)
	}
}
