package browser

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/report"
)

// hostile is the name of an instance by its tag, as far as a tag can be hostile: 256 characters of any kind.
const hostile = `</script><script>document.title="owned"</script><img src=x onerror="document.title='owned'"><svg onload=alert(1)>"'&lt;` + "\u202e" + `evil`

const mount = "alice_cluster/pki/k8s"

// now is a time of day at which no bar of a chart is cut off.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

func id(n int) string { return fmt.Sprintf("i-%017x", 0xabcde00000+n*7919) }

// fleet returns a fleet of live instances, with as many tombstones within 30 days.
func fleet(live int) report.Answer {
	end := now()
	a := report.Answer{
		Mode: "report", Deployment: "vault-identities", Account: "123456789012", Region: "eu-central-1", Program: "v1.4.0", Profiles: strings.Repeat("5f3a9c07", 8),
		RequestID: "6f2d1c1a-0b7e-4a53-9f0e-2f6f4b8f3f10", From: end.Add(-4 * time.Second), To: end, Unread: []fault.Unread{},
	}
	for n := range 2 * live {
		a.Instances = append(a.Instances, member(n, n < live, end))
		for _, name := range a.Instances[n].Names {
			a.Claims = append(a.Claims, report.Claim{Name: name, InstanceID: id(n)})
		}
		for _, former := range a.Instances[n].Former { // of the instance in quarantine
			a.Claims = append(a.Claims, report.Claim{Name: former.Name, InstanceID: id(n)})
		}
	}
	return a
}

// member returns the nth instance.
func member(n int, isLive bool, end time.Time) report.Instance {
	profiles := []string{"alice_cluster-worker", "alice_cluster-worker", "alice_cluster-worker", "alice_cluster-etcd", "bob_cluster-worker"}
	address := fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255)
	began := end.Add(-time.Duration(n%40*17+1) * time.Hour).Add(-time.Duration(n%3000) * time.Second)
	ready := began.Add(time.Duration(900+n*37%4200) * time.Millisecond)
	by := ledger.ByEvent
	if n%3 == 0 {
		by, ready = ledger.ByHook, ready.Add(time.Duration(n%50)*time.Second)
	}
	name := "ip-" + strings.ReplaceAll(address, ".", "-") + ".eu-central-1.compute.internal"
	i := report.Instance{
		InstanceID: id(n), State: ledger.Active, Account: "123456789012", Region: "eu-central-1", Profile: profiles[n%len(profiles)], ProfileDigest: strings.Repeat("5f", 32),
		FQDN: name, Addresses: []string{address}, Objects: 4, LoginType: "ec2", TokenMaxTTL: 86400, CertificateTTL: 259200, CreatedAt: began, UpdatedAt: ready,
		Ready: &report.Span{By: by, From: &began, To: &ready},
	}
	names := []report.Name{{Text: name, Under: mount}, {Text: "system:node:" + name, Under: mount}, {Text: address, Under: mount}}
	switch {
	case !isLive:
		gone := end.Add(-time.Duration(n*7919%(29*24*60)+30) * time.Minute)
		began, kept := gone.Add(-time.Duration(700+n*13%2500)*time.Millisecond), gone.Add(30*24*time.Hour)
		created := gone.Add(-time.Duration(n%200) * time.Hour)
		i.State, i.Objects, i.DeletedAt, i.CreatedAt, i.UpdatedAt, i.ExpiresAt = ledger.Deleted, 0, &gone, created, gone, &kept
		i.Ready, i.Cut = nil, &report.Span{By: ledger.ByEvent, From: &began, To: &gone}
		for _, released := range names {
			i.Released = append(i.Released, report.DatedName{Name: released, At: &gone})
		}
		if n%10 == 5 {
			i.Cut.By = ledger.ByQuarantine
			i.Quarantine = &report.Quarantine{Since: began, By: "bob", Reason: "ticket 4712", Source: ledger.ByFinding, ReleasedAt: &gone, ReleasedBy: "carol", ReleaseReason: "a false alarm"}
		}
		return i
	case n == 2:
		i.FQDN, names = hostile, []report.Name{{Text: hostile, Under: mount}, {Text: address, Under: mount}}
	case n%97 == 4:
		i.State, i.Objects, i.Profile, i.FQDN, i.Addresses, i.Attempts, i.Ready, names = ledger.Refused, 0, "", "", nil, 1, nil, nil
		i.Error = "the name web-1.alice.example below " + mount + " is held by instance " + id(1) + " (running). It will be granted when that instance ends."
	case n%211 == 7:
		i.State, i.Ready = ledger.Provisioning, &report.Span{By: by, From: &began}
		i.Error, i.Attempts = "writing "+mount+"/roles/"+id(n)+"-kubelet: status 503: Vault is sealed", 2
	case n == 8:
		i.State = "suspended" // a state of a later version
	case n == 9:
		quarantine(&i, names, end.Add(-time.Hour))
		return i
	case n%5 == 1:
		i.Ready = nil // of an earlier version
	}
	i.Names = names
	return i
}

// quarantine puts an instance into quarantine: its grant is removed, and its names are held.
func quarantine(i *report.Instance, names []report.Name, since time.Time) {
	cut := since.Add(800 * time.Millisecond)
	i.State, i.Objects, i.DeletedAt, i.UpdatedAt, i.Cut = ledger.Deleted, 0, &cut, cut, &report.Span{By: ledger.ByQuarantine, From: &since, To: &cut}
	i.Quarantine = &report.Quarantine{Since: since, By: "arn:aws:iam::123456789012:user/alice", Reason: "unknown login, ticket 4711 " + hostile, Source: ledger.ByCommand}
	for _, n := range names {
		i.Former = append(i.Former, report.DatedName{Name: n})
	}
}

// drift returns the answer of the comparison.
func drift() reconcile.Answer {
	return reconcile.Answer{
		Mode: reconcile.Detect, Scanned: reconcile.Scanned{Instances: 10, Records: 10, Policies: 11, AuthRoles: 10, PKIRoles: 10}, DurationMs: 1840,
		Summary: reconcile.Summary{Missing: 1, Changed: 1, Conflicting: 1, Orphaned: 1},
		Drift: []reconcile.Drift{
			{InstanceID: id(0), Object: "policy", Path: "sys/policies/acl/ec2-" + id(0) + "-node", Reason: reconcile.Changed, Action: reconcile.Update, Fields: []string{"policy"},
				Diff: "  path \"alice_cluster/pki/k8s/issue/" + id(0) + "-kubelet\" {\n-   capabilities = [\"update\"]\n+   capabilities = [\"update\", \"sudo\"]\n  }"},
			{InstanceID: id(1), Object: "auth-role", Path: "auth/aws/role/" + id(1), Reason: reconcile.Missing, Action: reconcile.Create},
			{InstanceID: id(3), Object: "pki-role", Path: mount + "/roles/" + id(3) + "-kubelet", Reason: reconcile.Conflicting, Action: reconcile.None, Error: "it is marked as another deployment's: " + hostile},
			{Object: "policy", Path: "sys/policies/acl/ec2-" + id(5) + "-door", Reason: reconcile.Orphaned, Action: reconcile.Delete},
		},
	}
}

// service answers Lambda's Invoke for the modes report, in parts as large as the function's, and detect.
type service struct {
	all      report.Answer
	compared reconcile.Answer
}

const partSize = 4000 // items

// answerTime is less than any function takes. An answer in the very moment in which the request ends can meet the SDK's client while it
// still closes the request, and then it closes the connection.
const answerTime = 10 * time.Millisecond

func (s service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	time.Sleep(answerTime)
	var in reconcile.Input
	if err := json.Unmarshal(body, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if in.Mode == reconcile.Detect {
		answer(w, s.compared)
		return
	}
	from := 0
	if in.Cursor != nil {
		_, _ = fmt.Sscan(in.Cursor.After, &from)
	}
	part := struct {
		report.Answer
		Cursor *reconcile.Cursor `json:"cursor,omitempty"`
	}{Answer: s.all}
	cut := func(n int) (int, int) { return min(from, n), min(from+partSize, n) }
	a, b := cut(len(s.all.Instances))
	part.Instances = s.all.Instances[a:b]
	a, b = cut(len(s.all.Claims))
	part.Claims = s.all.Claims[a:b]
	if from+partSize < max(len(s.all.Instances), len(s.all.Claims)) {
		part.Cursor = &reconcile.Cursor{After: fmt.Sprint(from + partSize), Limit: 1}
	}
	answer(w, part)
}

// answer writes an answer with its length, as Lambda does.
func answer(w http.ResponseWriter, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	_, _ = w.Write(text)
}

// write has the built command write the page of a fleet, and returns its file.
func write(t *testing.T, s service, status int) (file string) {
	t.Helper()
	server := httptest.NewServer(s)
	defer server.Close()
	file = filepath.Join(t.TempDir(), "fleet.html")
	cmd := exec.CommandContext(t.Context(), "../../../build/vault-ec2", "report", "--function", "vault-identities-Reconcile", "-o", file)
	cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL_LAMBDA="+server.URL, "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=lab", "AWS_SECRET_ACCESS_KEY=lab")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != status {
		t.Fatalf("want the exit status %d: %v\n%s(make build makes the command)", status, err, out)
	}
	return file
}
