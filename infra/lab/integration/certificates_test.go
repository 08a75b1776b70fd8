package integration

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/certificates"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// storing holds the functions of a deployment that revokes stored certificates, without leases. A tag names its workers.
type storing struct {
	env                           map[string]string
	granting, removing, comparing *sandbox.Function
}

func newStoring(t *testing.T) storing {
	t.Helper()
	setUp(t, "-revoke-certificates", "-revoke-stored-certificates")
	env := map[string]string{"REVOKE_CERTIFICATES": "all", "TEMPLATES_DIR": byName(t)}
	return storing{env, variant(t, provision, env), variant(t, deprovision, env), variant(t, reconcile, env)}
}

// worker grants a worker with a name and logs it in.
func (s storing) worker(t *testing.T, name string) (fleet.Instance, *fleet.Session) {
	t.Helper()
	i := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": name}})
	mustBy(t, s.granting, i, "running", "provisioned")
	return i, login(t, i)
}

// certificates has the instance issue one certificate and sign another, and returns their serial numbers in decimal.
func (s storing) certificates(t *testing.T, i fleet.Instance, session *fleet.Session) []string {
	t.Helper()
	var serials []string
	for op, fields := range map[string]map[string]any{
		"issue": {"common_name": "system:node:" + i.Tags["Name"], "ip_sans": i.PrivateIP},
		"sign":  {"common_name": "system:node:" + i.Tags["Name"], "csr": csr(t, &x509.CertificateRequest{})},
	} {
		status, body := send(t, session.Client, request{path: k8s + "/" + op + "/" + i.ID + "-kubelet", body: text(t, fields)})
		var answer struct{ Data struct{ Certificate string } }
		if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", op, status, body, err)
		}
		serials = append(serials, certificate(t, answer.Data.Certificate).SerialNumber.String())
	}
	return serials
}

// sweep runs mode certificates and returns what it did, and what it did on the workers' mount.
func (s storing) sweep(t *testing.T) (a certificates.Answer, m certificates.Mount) {
	t.Helper()
	question(t, s.comparing, rec.Input{Mode: rec.Certificates}, &a)
	if len(a.Unread) > 0 {
		t.Fatalf("want all of it done, got %+v\n%s", a.Unread, lastOf(s.comparing.Logs()))
	}
	for _, of := range a.Mounts {
		if of.Mount == k8s {
			m = of
		}
	}
	return a, m
}

// wantOnCRL fails unless exactly the certificates of these groups are on the CRL that should be.
func wantOnCRL(t *testing.T, when string, revoked, valid []string) {
	t.Helper()
	on := onCRL(t)
	for _, serial := range revoked {
		if !on[serial] {
			t.Errorf("%s: certificate %s of an ended instance is not on the CRL of %d entries: its key still passes for the instance", when, serial, len(on))
		}
	}
	for _, serial := range valid {
		if on[serial] {
			t.Errorf("%s: certificate %s is on the CRL, and it is not of an ended instance: what uses it fails", when, serial)
		}
	}
}

func TestCertificates_OfEndedInstancesAreRevoked(t *testing.T) {
	s := newStoring(t)
	s.sweep(t) // what other tests left
	name := func(n string) string { return fmt.Sprintf("%s-%d.alice.example", n, time.Now().UnixNano()) }
	gone, goneSession := s.worker(t, name("gone"))
	stays, staysSession := s.worker(t, name("stays"))
	early, good := s.certificates(t, gone, goneSession), s.certificates(t, stays, staysSession)
	// An operator's own role on the mount issues for a name of no instance.
	vaultWrite(t, k8s+"/roles/operator", map[string]any{"allow_any_name": true, "max_ttl": "1h", "key_type": "ec", "key_bits": 256})
	t.Cleanup(func() { vaultDelete(t, k8s+"/roles/operator") })
	operators := vaultWrite(t, k8s+"/issue/operator", map[string]any{"common_name": "www.example.com"})
	good = append(good, certificate(t, fmt.Sprint(operators["certificate"])).SerialNumber.String())

	a, m := s.sweep(t)
	if m.Attributed != 4 || m.Unknown == 0 || m.Doubtful != 0 || a.Revoked != 0 || !a.Complete {
		t.Fatalf("want 4 certificates of instances, 1 of none, and none revoked, got %+v of %+v", m, a)
	}
	world.Taps.Vault.Reset()
	if _, m := s.sweep(t); m.Read != m.Unknown { // those of no instance are judged again once a day
		t.Errorf("want no certificate of an instance read a second time, which is what bounds the price, got %+v", m)
	}

	late := s.certificates(t, gone, goneSession) // no run has seen these
	terminate(t, gone)
	mustBy(t, s.removing, gone, "terminated", "deprovisioned")
	wantGone(t, gone, goneSession)
	wantOnCRL(t, "at the end", early, slices.Concat(good, late))
	a, _ = s.sweep(t)
	if a.Revoked != 2 || len(a.Ended) != 1 || a.Ended[0].InstanceID != gone.ID {
		t.Errorf("want the 2 certificates that came after the first run revoked, got %+v", a)
	}
	wantOnCRL(t, "after the next run", slices.Concat(early, late), good)
	if a, m := s.sweep(t); a.Revoked != 0 || m.Read != m.Unknown {
		t.Errorf("want nothing left to do, got %+v", a)
	}
	remove(t, stays)
}

// The successor has the name and the certificates of the moment in which the name passed. Those are never revoked while it lives.
func TestCertificates_OfASuccessorStayValid(t *testing.T) {
	s := newStoring(t)
	s.sweep(t)
	name := fmt.Sprintf("passed-%d.alice.example", time.Now().UnixNano())
	first, session := s.worker(t, name)
	firsts := s.certificates(t, first, session)
	s.sweep(t)
	terminate(t, first)
	mustBy(t, s.removing, first, "terminated", "deprovisioned")
	second, session := s.worker(t, name)
	seconds := s.certificates(t, second, session)
	_, m := s.sweep(t)
	// The signed one has the name alone, and may be of the first holder's last moments. The other has the successor's address too.
	if m.Doubtful != 1 || m.Attributed != 1 {
		t.Errorf("want both certificates of the successor recorded as its own, one in doubt, got %+v", m)
	}
	wantOnCRL(t, "after the name passed", firsts, seconds)
	terminate(t, second)
	mustBy(t, s.removing, second, "terminated", "deprovisioned")
	wantOnCRL(t, "after both ended", slices.Concat(firsts, seconds), nil)
}

func TestCertificates_AnOutageIsMadeUpFor(t *testing.T) {
	s := newStoring(t)
	s.sweep(t)
	i, session := s.worker(t, fmt.Sprintf("outage-%d.alice.example", time.Now().UnixNano()))
	serials := s.certificates(t, i, session)
	s.sweep(t)
	terminate(t, i)
	world.Taps.Vault.SetFault(func(c tap.Call) *tap.Fault {
		if strings.HasSuffix(c.Path, k8s+"/revoke") {
			return unavailable()
		}
		return nil
	})
	t.Cleanup(func() { world.Taps.Vault.SetFault(nil) })
	again, _ := labtest.Deliver(t, s.removing, fleet.Event(i, "terminated", time.Now()))
	if !slices.Equal(again, []int{0}) {
		t.Errorf("want the message back for the certificates, got %v", again)
	}
	wantGone(t, i, session) // the rest is done
	var a certificates.Answer
	question(t, s.comparing, rec.Input{Mode: rec.Certificates}, &a)
	if a.Complete || len(a.Ended) != 1 || a.Ended[0].Error == "" {
		t.Errorf("want the run to say that certificates are left, got %+v", a)
	}
	wantOnCRL(t, "in the outage", nil, serials)
	world.Taps.Vault.SetFault(nil)
	if a, _ := s.sweep(t); a.Revoked != 2 {
		t.Errorf("want both revoked by the next run, got %+v", a)
	}
	wantOnCRL(t, "after the outage", serials, nil)
}

// Vault's audit log names each certificate: it is revoked with its instance, before any run looked for it.
func TestCertificates_ComeFromTheAuditLog(t *testing.T) {
	s := newStoring(t)
	file := labFile(t, deployment{env: maps.Clone(s.env), comparing: s.comparing})
	logs, err := filepath.Glob(world.AuditLog)
	if err != nil || len(logs) != 1 {
		t.Fatalf("want one audit log, got %v, %v", logs, err)
	}
	tune := func(keys ...string) {
		if err := world.Vault.Sys().TuneMountAllowNilWithContext(t.Context(), k8s, vaultapi.TuneMountConfigInput{AuditNonHMACResponseKeys: &keys}); err != nil {
			t.Fatal(err)
		}
	}
	i, session := s.worker(t, fmt.Sprintf("audited-%d.alice.example", time.Now().UnixNano()))
	log := newLines(t, logs[0])
	s.certificates(t, i, session)
	vaultEC2(t, log.rest(t), 1, "audit-non-hmac-response-keys=serial_number", "certificates", "--lab="+file, "--audit-log", "-")

	tune("serial_number")
	t.Cleanup(func() {
		if err := world.Vault.Sys().TuneMountAllowNil(k8s, vaultapi.TuneMountConfigInput{AuditNonHMACResponseKeys: &[]string{}}); err != nil {
			t.Error(err)
		}
	})
	log = newLines(t, logs[0])
	serials := s.certificates(t, i, session)
	vaultEC2(t, log.rest(t), 0, "2 recorded\n0 revoked", "certificates", "--lab="+file, "--audit-log", "-")
	terminate(t, i)
	mustBy(t, s.removing, i, "terminated", "deprovisioned")
	wantOnCRL(t, "at the end", serials, nil)
	vaultEC2(t, "", 0, "2 revoked", "certificates", "--lab="+file) // those whose lines were hashed
}

// Nothing but RevokeCertificates=all reaches stored certificates.
func TestCertificates_StayWhereNotAsked(t *testing.T) {
	payload := []byte(`{"mode": "certificates"}`)
	result, err := world.Functions[reconcile].Invoke(t.Context(), payload)
	if err != nil || result.Err() == nil || !strings.Contains(string(result.Payload), "RevokeCertificates=all") {
		t.Errorf("want the mode refused with the way to turn it on, got %s, %v", result.Payload, err)
	}
}

// lines is a file that grows.
type lines struct {
	file string
	from int64
}

// newLines returns the lines that a file gets from now on.
func newLines(t *testing.T, file string) lines {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return lines{file, info.Size()}
}

// rest returns the lines so far.
func (l lines) rest(t *testing.T) string {
	t.Helper()
	all, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(all[l.from:])
}
