package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// The outcomes of a message after a fault: it returns to the queue (retry), is acknowledged as refused (refuse), or is done
// despite the fault (overcome).
const (
	retry    = "retry"
	refuse   = "refuse"
	overcome = "overcome"
)

// outage is one fault of a dependency and its expected outcome.
type outage struct {
	name string
	hits func(c tap.Call, id string) bool // selects the calls to disturb
	play func(l *lab.Line, c tap.Call) *tap.Fault
	want string
	// leased: a timeout or a lost answer leaves the lease, and the next delivery waits for it.
	leased  bool
	removal bool   // the fault hits a removal
	cold    bool   // the fault hits a process without a token, a CA and a role
	account string // the instance's, if it is not the function's own
}

const foreignAccount = "111122223333"

// outages returns the table of faults. No two rows may have the same name.
func outages(t *testing.T) []outage {
	all := slices.Concat(slowOutages(), vaultOutages(), removalOutages(), dynamoOutages(), awsOutages())
	seen := map[string]bool{}
	for _, o := range all {
		if seen[o.name] {
			t.Fatalf("two rows are named %q", o.name)
		}
		seen[o.name] = true
	}
	return all
}

func TestOutsideFaults_EndAsTheTableSays(t *testing.T) {
	t.Parallel()
	const atOnce = 8
	lines := make([]*lab.Line, atOnce)
	for n := range lines {
		lines[n] = line(t, lab.LineOptions{Name: fmt.Sprint("outside", n), Functions: []string{provision, deprovision}})
	}
	var ended, faults atomic.Int64
	all := outages(t)
	sideBySide(t, atOnce, all, func(o outage) string { return o.name }, func(t *testing.T, worker int, o outage) {
		faults.Add(int64(o.run(t, lines[worker])))
		ended.Add(1)
	})
	t.Logf("%d kinds of fault, %d calls disturbed, %d kinds run to the end", len(all), faults.Load(), ended.Load())
}

// run takes one instance through the fault and its recovery, and returns the number of disturbed calls.
func (o outage) run(t *testing.T, l *lab.Line) int {
	i := launch(t, fleet.Spec{Role: "alice-worker", AccountID: o.account})
	f, body := l.Functions[provision], fleet.Event(i, "running", time.Now())
	var sessions []*fleet.Session
	if o.removal {
		must(t, provision, i, "running", "provisioned")
		session := login(t, i)
		sessions = append(sessions, session)
		terminate(t, i)
		f, body = l.Functions[deprovision], fleet.Event(i, "terminated", time.Now())
	}
	if o.cold {
		if err := f.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	l.Reset()
	l.SetFault(func(c tap.Call) *tap.Fault {
		if o.hits(c, i.ID) {
			return o.play(l, c)
		}
		return nil
	})
	defer l.SetFault(nil)
	again, result := labtest.Deliver(t, f, body)
	if err := result.Err(); err != nil {
		t.Fatalf("want the fault reported for its message, but the whole invocation failed: %v", err)
	}
	if returned := len(again) > 0; returned != (o.want == retry) {
		t.Errorf("want the outcome %s, but the message returned to the queue: %v\nlogs:\n%s", o.want, returned, lastOf(f.Logs()))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := l.Quiet(ctx); err != nil {
		t.Fatal(err)
	}
	disturbed := faulted(l)
	if disturbed == 0 {
		t.Fatal("no call was disturbed, so the row proves nothing")
	}
	if o.want != overcome {
		if kind := kindLogged(t, f.Logs, i.ID); kind != o.want {
			t.Errorf("want a fault of kind %s in the log, got %q", o.want, kind)
		}
	}
	nothingHalfMade(t, i)
	if o.removal {
		noLogin(t, i, sessions[0].Nonce)
	}
	r, err := world.Record(t.Context(), i.ID)
	if err != nil || (r.LeaseOwner != "") != o.leased {
		t.Errorf("want a lease left behind: %v, got the record %+v, %v", o.leased, r, err)
	}

	l.SetFault(nil)
	if !o.leased && o.want == retry && !o.cold { // else a lease, or a login's failure that is cached for a moment
		if again, _ := labtest.Deliver(t, f, body); len(again) > 0 {
			t.Errorf("want the very next delivery to succeed once the fault has ended\nlogs:\n%s", lastOf(f.Logs()))
		}
	}
	untilDone(t, f, i, body)
	if o.removal {
		wantGone(t, i, sessions...)
	} else {
		wantGranted(t, i)
	}
	return disturbed
}

// faulted returns the number of a line's calls that a fault hit.
func faulted(l *lab.Line) int {
	n := 0
	for _, c := range slices.Concat(l.Taps.AWS.Calls(), l.Taps.Dynamo.Calls(), l.Taps.Vault.Calls()) {
		if c.Faulted {
			n++
		}
	}
	return n
}

// kindLogged waits for the last kind of fault that a function logged for an instance.
func kindLogged(t *testing.T, logs func() string, id string) string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		lines := strings.Split(logs(), "\n")
		slices.Reverse(lines)
		for _, text := range lines {
			var fields map[string]any
			if json.Unmarshal([]byte(text), &fields) == nil && fields[observe.KeyInstance] == id && fields[observe.KeyKind] != nil {
				return fmt.Sprint(fields[observe.KeyKind])
			}
		}
	}
	return ""
}

// The faults, as the taps play them.

func answers(status int, kind, body string) func(*lab.Line, tap.Call) *tap.Fault {
	return func(*lab.Line, tap.Call) *tap.Fault {
		return &tap.Fault{Status: status, Header: http.Header{"Content-Type": {kind}}, Body: []byte(body)}
	}
}

func plays(f tap.Fault) func(*lab.Line, tap.Call) *tap.Fault {
	return func(*lab.Line, tap.Call) *tap.Fault { return &f }
}

// once plays a fault for the first call only.
func once(play func(*lab.Line, tap.Call) *tap.Fault) func(*lab.Line, tap.Call) *tap.Fault {
	var n atomic.Int64
	return func(l *lab.Line, c tap.Call) *tap.Fault {
		if n.Add(1) > 1 {
			return nil
		}
		return play(l, c)
	}
}

// The calls, by what they do.

// vaultCall selects the calls to Vault with one of the methods and a path that contains the instance ID and a text.
func vaultCall(methods, text string) func(tap.Call, string) bool {
	return func(c tap.Call, id string) bool {
		method, _, _ := strings.Cut(c.Action, " ")
		return c.Service == "vault" && strings.Contains(methods, method) && strings.Contains(c.Path, id) && strings.Contains(c.Path, text)
	}
}

func vaultLogin(c tap.Call, _ string) bool {
	return c.Service == "vault" && strings.HasSuffix(c.Path, "/login")
}

func anyVaultCall(c tap.Call, _ string) bool { return c.Service == "vault" }

// call selects an action of an AWS service, and only for the instance if the body names one.
func call(service, action string) func(tap.Call, string) bool {
	return func(c tap.Call, id string) bool {
		named := !strings.Contains(string(c.Body), "i-") || strings.Contains(string(c.Body), id)
		return c.Service == service && c.Action == action && named
	}
}
