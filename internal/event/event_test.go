package event_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

func sample(t testing.TB, name string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "events", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// parsed returns the one record of an event.
func parsed(t *testing.T, e map[string]any) event.Record {
	t.Helper()
	p, err := event.Parse(marshal(t, e))
	if err != nil || len(p.Records) != 1 || p.Batch {
		t.Fatalf("want one bare event, got %+v, %v", p, err)
	}
	return p.Records[0]
}

func detail(e map[string]any) map[string]any { return e["detail"].(map[string]any) }

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSampleEvent_NamesItsInstance(t *testing.T) {
	for _, state := range []facts.State{facts.Pending, facts.Running, facts.Stopping, facts.Stopped, facts.ShuttingDown, facts.Terminated} {
		r := parsed(t, sample(t, string(state)))
		if r.Err != nil || r.Event.ID != "i-0123456789abcdef0" || r.Event.Account != "123456789012" || r.Event.Region != "us-east-1" ||
			r.Event.State != state || r.Event.Time.IsZero() {
			t.Errorf("events/%s.json was read as %+v, %v", state, r.Event, r.Err)
		}
	}
}

func TestParse_NamesTheFaultOfABadEvent(t *testing.T) {
	type row struct {
		spoil   func(map[string]any)
		says    string
		ignored bool
	}
	resources := func(list ...string) func(map[string]any) {
		return func(e map[string]any) { e["resources"] = append([]string{}, list...) }
	}
	for file, rows := range map[string]map[string]row{"running": {
		"an unknown detail-type is ignored": {func(e map[string]any) { e["detail-type"] = "EC2 Spot Interruption" }, "EC2 Spot Interruption", true},
		"another source is ignored":         {func(e map[string]any) { e["source"] = "aws.s3" }, "aws.s3", true},
		"another version is ignored":        {func(e map[string]any) { e["version"] = "1" }, `version "1"`, true},
		"an unknown state":                  {func(e map[string]any) { detail(e)["state"] = "hibernated" }, "hibernated", false},
		"a state in another case":           {func(e map[string]any) { detail(e)["state"] = "Running" }, "Running", false},
		"no state":                          {func(e map[string]any) { delete(detail(e), "state") }, `unknown instance state ""`, false},
		"a malformed instance ID":           {func(e map[string]any) { detail(e)["instance-id"] = "i-0123/../x" }, "not the ID of an EC2 instance", false},
		"an upper-case instance ID":         {func(e map[string]any) { detail(e)["instance-id"] = "i-0123456789ABCDEF0" }, "not the ID", false},
		"no detail":                         {func(e map[string]any) { delete(e, "detail") }, "detail", false},
		"a detail that is a string":         {func(e map[string]any) { e["detail"] = "x" }, "detail", false},
		"a malformed account":               {func(e map[string]any) { e["account"] = "1234" }, "not an account ID", false},
		"a malformed region":                {func(e map[string]any) { e["region"] = "nowhere" }, "not a region", false},
		"no time":                           {func(e map[string]any) { delete(e, "time") }, "has no time", false},
		"a malformed time":                  {func(e map[string]any) { e["time"] = "yesterday" }, "reading the event", false},
		"a region with a domain of its own": {func(e map[string]any) { e["region"] = "us-east-1.evil.example/" }, "not a region", false},
	}, "launch-hook": {
		"no group":                       {func(e map[string]any) { detail(e)["AutoScalingGroupName"] = " " }, "names no group", false},
		"no hook":                        {func(e map[string]any) { delete(detail(e), "LifecycleHookName") }, "no hook", false},
		"another transition":             {func(e map[string]any) { detail(e)["LifecycleTransition"] = "autoscaling:TEST_NOTIFICATION" }, "TEST_NOTIFICATION", false},
		"another instance":               {func(e map[string]any) { detail(e)["EC2InstanceId"] = "i-../x" }, "not the ID of an EC2 instance", false},
		"no detail":                      {func(e map[string]any) { delete(e, "detail") }, "detail", false},
		"a successful launch is ignored": {func(e map[string]any) { e["detail-type"] = "EC2 Instance Launch Successful" }, "", true},
	}, "tag-change": {
		"a volume":          {resources("arn:aws:ec2:us-east-1:123456789012:volume/vol-0123456789abcdef0"), "", true},
		"another service's": {resources("arn:aws:rds:us-east-1:123456789012:instance/i-0123456789abcdef0"), "", true},
		"none":              {resources(), "", false},
		"no list":           {func(e map[string]any) { e["resources"] = "x" }, "", false},
		"a made-up ID":      {resources("arn:aws:ec2:us-east-1:123456789012:instance/../x"), "", false},
	}} {
		for name, row := range rows {
			e := sample(t, file)
			row.spoil(e)
			got := parsed(t, e).Err
			if got == nil || !strings.Contains(got.Error(), row.says) {
				t.Fatalf("%s: the error must name the fault (%q), got %v", name, row.says, got)
			}
			if fault.KindOf(got) != fault.Refuse {
				t.Errorf("%s: %v is of kind %s: a body that cannot be read must not be retried forever", name, got, fault.KindOf(got))
			}
			if errors.Is(got, event.ErrIgnored) != row.ignored {
				t.Errorf("%s: %v: ignored is %v, want %v", name, got, !row.ignored, row.ignored)
			}
		}
	}
}

func TestParse_BadBodyFailsAlone(t *testing.T) {
	batch := map[string]any{"Records": []map[string]any{
		{"messageId": "1", "body": string(marshal(t, sample(t, "running"))), "eventSource": "aws:sqs", "somethingNew": 1},
		{"messageId": "2", "body": "{"},
		{"messageId": "3", "body": string(marshal(t, sample(t, "terminated")))},
	}}
	p, err := event.Parse(marshal(t, batch))
	if err != nil || !p.Batch || len(p.Records) != 3 {
		t.Fatalf("want a batch of 3, got %+v, %v", p, err)
	}
	if p.Records[0].Err != nil || p.Records[2].Err != nil || p.Records[1].Err == nil {
		t.Errorf("want only the second to fail, got %v, %v, %v", p.Records[0].Err, p.Records[1].Err, p.Records[2].Err)
	}
	if p.Records[2].MessageID != "3" || p.Records[2].Event.State != facts.Terminated {
		t.Errorf("the third record was read as %+v", p.Records[2])
	}
}

func TestParse_RefusesPayloadThatIsNoObject(t *testing.T) {
	for _, payload := range []string{"", "[]", "7", "{", "\x00"} {
		if _, err := event.Parse([]byte(payload)); fault.KindOf(err) != fault.Refuse || err == nil {
			t.Errorf("payload %q: want a refusal, got %v", payload, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"running", "terminated", "launch-hook"} {
		f.Add(marshal(f, sample(f, name)))
	}
	f.Add([]byte(`{"Records":[{"body":"{}"}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := event.Parse(payload)
		if err != nil {
			return
		}
		for _, r := range p.Records {
			if r.Err == nil && (!facts.IsInstanceID(r.Event.ID) || !facts.IsAccount(r.Event.Account) || !facts.IsRegion(r.Event.Region)) {
				t.Errorf("%q was parsed as the event %+v without an error", payload, r.Event)
			}
		}
	})
}

func TestOwnEvent_VerifiesAndNeverRemoves(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, state := range []facts.State{facts.Pending, facts.Running, facts.Stopped, facts.ShuttingDown, facts.Terminated} {
		sent := event.Event{Ref: facts.Ref{ID: "i-0123456789abcdef0", Place: facts.Place{Account: "123456789012", Region: "us-east-1"}}, State: state, Time: at}
		body, err := event.Body(sent)
		if err != nil {
			t.Fatal(err)
		}
		p, err := event.Parse(body)
		if err != nil || len(p.Records) != 1 {
			t.Fatalf("%s: %+v, %v", body, p, err)
		}
		r, live := p.Records[0], state == facts.Pending || state == facts.Running
		if live && (r.Err != nil || !r.Event.Verify || r.Event.State != state || !r.Event.Time.Equal(at)) {
			t.Errorf("%s: want it parsed with Verify set, got %+v", body, r)
		}
		if !live && (r.Err == nil || fault.KindOf(r.Err) != fault.Refuse) {
			t.Errorf("%s: want it refused, since no removal travels through a queue, got %+v", body, r)
		}
	}
}

func TestLifecycleAction_DoesNotDecideTheState(t *testing.T) {
	for file, want := range map[string]event.Hook{
		"launch-hook":    {Group: "workers", Name: "vault-identity-ready", Token: "87654321-4321-4321-4321-210987654321"},
		"terminate-hook": {Group: "workers", Name: "vault-identity-gone", Token: "87654321-4321-4321-4321-210987654321", Terminating: true},
	} {
		r := parsed(t, sample(t, file))
		if r.Err != nil || r.Event.Hook == nil {
			t.Fatalf("events/%s.json: %+v", file, r)
		}
		got := r.Event
		want.At = got.Time
		if *got.Hook != want || got.State != facts.Running || got.Verify {
			t.Errorf("events/%s.json was read as %+v with %+v, want %+v: only Auto Scaling can say whether the instance leaves", file, got, *got.Hook, want)
		}
	}
}

// https://docs.aws.amazon.com/autoscaling/ec2/userguide/prepare-for-lifecycle-notifications.html
func TestHookNotice_IsIgnored(t *testing.T) {
	p, err := event.Parse([]byte(`{"AccountId":"123456789012","RequestId":"7a1b","AutoScalingGroupARN":"arn:aws:autoscaling:x","AutoScalingGroupName":"workers",` +
		`"Service":"AWS Auto Scaling","Event":"autoscaling:TEST_NOTIFICATION","Time":"2026-01-02T03:04:05.678Z"}`))
	if err != nil || len(p.Records) != 1 || !errors.Is(p.Records[0].Err, event.ErrIgnored) {
		t.Errorf("want the test notification ignored, got %+v, %v", p, err)
	}
}

func TestWarmPool_OnlyTerminatingReturns(t *testing.T) {
	for file, returns := range map[string]bool{"terminate-hook": true, "launch-hook": false} {
		e := sample(t, file)
		detail(e)["Destination"] = "WarmPool"
		if r := parsed(t, e); r.Err != nil || r.Event.Hook.Returns != returns {
			t.Errorf("%s: want an instance that returns: %v, got %+v", file, returns, r)
		}
	}
}

func TestTagEvent_NamesItsInstance(t *testing.T) {
	if r := parsed(t, sample(t, "tag-change")); r.Err != nil || r.Event.ID != "i-0123456789abcdef0" || r.Event.State != facts.Pending {
		t.Errorf("want the event of the instance, got %+v", r)
	}
}
