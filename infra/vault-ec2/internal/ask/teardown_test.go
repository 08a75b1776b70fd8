package ask

import (
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

var confirmed = Options{Input: reconcile.Input{Mode: reconcile.Teardown, Confirm: "prod"}}

const (
	removedTwo = `{"mode":"teardown","scanned":{"records":2},"drift":[{"instanceId":"i-0a","object":"record","reason":"orphaned","action":"delete"}],
		"summary":{"orphaned":2,"corrected":2}}`
	nothingLeft = `{"mode":"teardown","scanned":{},"drift":[],"summary":{}}`
	oneFailed   = `{"mode":"teardown","scanned":{"records":1},"drift":[{"instanceId":"i-0b","object":"record","path":"instance#i-0b","reason":"orphaned",
		"action":"delete","error":"it bears the marker of deployment other"}],"summary":{"orphaned":1,"failed":1}}`
	unsettled = `{"mode":"teardown","scanned":{"records":1},"drift":[],"summary":{"orphaned":1,"corrected":1},"unsettled":1}`
	misnamed  = `{"mode":"teardown","scanned":{},"drift":[{"instanceId":"","object":"policy","path":"sys/policies/acl/ec2-i-door","reason":"conflicting",
		"action":"none","error":"delete it by hand"}],"summary":{"conflicting":1}}`
	blockedTD = `{"mode":"teardown","scanned":{},"drift":[],"summary":{},"blocked":true,"blockedReason":"listing auth/aws/role: status 503"}`
)

func TestTeardown_AsksForTheNameAndRunsToTheEnd(t *testing.T) {
	s := &service{answers: []string{removedTwo, nothingLeft}, typing: "prod-vault\n"}
	status, out, asked, err := command(t, s, in(reconcile.Teardown))
	if err != nil || status != done || !strings.Contains(out, "nothing of the deployment is left") || !strings.Contains(out, "2 instances removed") {
		t.Errorf("want all removed and said so, got %d, %v\n%s", status, err, out)
	}
	if !strings.Contains(asked, "Type the deployment's name") {
		t.Errorf("want the name asked for, got %q", asked)
	}
	if len(s.received) != 2 || s.received[0] != `{"mode":"teardown","confirm":"prod-vault"}` {
		t.Errorf("want the typed name sent, for the function to compare with its own, got %q", s.received)
	}
}

func TestTeardown_NamesWhatIsRetained(t *testing.T) {
	const one = `{"mode":"teardown","scanned":{},"drift":[],"summary":{},"retainedCount":3,"retained":[{"instanceId":"i-0a","path":"alice_cluster/kv/i-0a-seed"}]}`
	status, out, _, err := command(t, &service{answers: []string{one}}, confirmed)
	if err != nil || status != done {
		t.Fatalf("want it done, got %d, %v", status, err)
	}
	for _, says := range []string{"retained: alice_cluster/kv/i-0a-seed, as the profile of i-0a says", "retained: 2 objects more", "nothing of the deployment is left but what is retained"} {
		if !strings.Contains(out, says) {
			t.Errorf("want %q, got\n%s", says, out)
		}
	}
}

func TestTeardown_NeedsAName(t *testing.T) {
	s := &service{answers: []string{nothingLeft}, typing: "\n"}
	if status, _, _, err := command(t, s, in(reconcile.Teardown)); err == nil || status != broken || len(s.received) > 0 {
		t.Errorf("want nothing sent, got %d, %v, %q", status, err, s.received)
	}
	s = &service{answers: []string{nothingLeft}}
	if status, _, asked, err := command(t, s, confirmed); err != nil || status != done || asked != "" {
		t.Errorf("want no prompt with a name, got %d, %v, %q", status, err, asked)
	}
	for _, in := range []reconcile.Input{
		{Mode: reconcile.Detect, Confirm: "prod"}, {Mode: reconcile.Teardown, InstanceIDs: []string{"i-0a"}}, {Mode: reconcile.Teardown, Force: true},
	} {
		if _, _, _, err := command(t, &service{answers: []string{nothingLeft}}, Options{Input: in}); err == nil {
			t.Errorf("%+v: want it refused", in)
		}
	}
}

func TestTeardown_LeftoversFailTheCommand(t *testing.T) {
	for answer, says := range map[string]string{
		oneFailed: "it bears the marker of deployment other", unsettled: "run it again after that", blockedTD: "BLOCKED: listing auth/aws/role",
		misnamed: "sys/policies/acl/ec2-i-door",
	} {
		status, out, _, err := command(t, &service{answers: []string{answer}}, confirmed)
		if err != nil || status != undone || !strings.Contains(out, says) || strings.Contains(out, "nothing of the deployment is left") {
			t.Errorf("want status %d and %q, got %d, %v\n%s", undone, says, status, err, out)
		}
	}
	if status, _, _, err := command(t, &service{answers: []string{removedTwo}}, confirmed); err == nil || status != undone {
		t.Errorf("want an error while the deployment still makes grants, got %d, %v", status, err)
	}
}
