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

func sample(t *testing.T, name string) map[string]any {
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

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSampleEvent_NamesItsInstance(t *testing.T) {
	for _, state := range []facts.State{facts.Pending, facts.Running, facts.Stopping, facts.Stopped, facts.ShuttingDown, facts.Terminated} {
		p, err := event.Parse(marshal(t, sample(t, string(state))))
		if err != nil || len(p.Records) != 1 || p.Batch {
			t.Fatalf("events/%s.json must be one bare event, got %+v, %v", state, p, err)
		}
		r := p.Records[0]
		if r.Err != nil {
			t.Fatalf("events/%s.json: %v", state, r.Err)
		}
		if r.Event.ID != "i-0123456789abcdef0" || r.Event.Account != "123456789012" || r.Event.Region != "us-east-1" ||
			r.Event.State != state || r.Event.Time.IsZero() {
			t.Errorf("events/%s.json was read as %+v", state, r.Event)
		}
	}
}

func TestParse_NamesTheFaultOfABadEvent(t *testing.T) {
	detail := func(e map[string]any) map[string]any { return e["detail"].(map[string]any) }
	for name, row := range map[string]struct {
		spoil   func(map[string]any)
		says    string
		ignored bool
	}{
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
	} {
		t.Run(name, func(t *testing.T) {
			e := sample(t, "running")
			row.spoil(e)
			p, err := event.Parse(marshal(t, e))
			if err != nil || len(p.Records) != 1 {
				t.Fatalf("one bad event must be one record, got %+v, %v", p, err)
			}
			got := p.Records[0].Err
			if got == nil || !strings.Contains(got.Error(), row.says) {
				t.Fatalf("the error must name the fault (%q), got %v", row.says, got)
			}
			if fault.KindOf(got) != fault.Refuse {
				t.Errorf("%v is of kind %s: a body that cannot be read must not be retried forever", got, fault.KindOf(got))
			}
			if errors.Is(got, event.ErrIgnored) != row.ignored {
				t.Errorf("%v: ignored is %v, want %v", got, !row.ignored, row.ignored)
			}
		})
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
		text, err := os.ReadFile(filepath.Join("..", "..", "events", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
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
		p, err := event.Parse(marshal(t, sample(t, file)))
		if err != nil || p.Records[0].Err != nil || p.Records[0].Event.Hook == nil {
			t.Fatalf("events/%s.json: %+v, %v", file, p, err)
		}
		got := p.Records[0].Event
		if *got.Hook != want || got.State != facts.Running || got.Verify {
			t.Errorf("events/%s.json was read as %+v with %+v, want %+v: only Auto Scaling can say whether the instance leaves", file, got, *got.Hook, want)
		}
	}
}

func TestLifecycleAction_UnanswerableIsRefused(t *testing.T) {
	detail := func(e map[string]any) map[string]any { return e["detail"].(map[string]any) }
	for name, row := range map[string]struct {
		spoil func(map[string]any)
		says  string
	}{
		"no group":           {func(e map[string]any) { detail(e)["AutoScalingGroupName"] = " " }, "names no group"},
		"no hook":            {func(e map[string]any) { delete(detail(e), "LifecycleHookName") }, "no hook"},
		"another transition": {func(e map[string]any) { detail(e)["LifecycleTransition"] = "autoscaling:TEST_NOTIFICATION" }, "TEST_NOTIFICATION"},
		"another instance":   {func(e map[string]any) { detail(e)["EC2InstanceId"] = "i-../x" }, "not the ID of an EC2 instance"},
		"no detail":          {func(e map[string]any) { delete(e, "detail") }, "detail"},
	} {
		e := sample(t, "launch-hook")
		row.spoil(e)
		p, err := event.Parse(marshal(t, e))
		if err != nil {
			t.Fatal(err)
		}
		got := p.Records[0].Err
		if got == nil || fault.KindOf(got) != fault.Refuse || !strings.Contains(got.Error(), row.says) || errors.Is(got, event.ErrIgnored) {
			t.Errorf("%s: want it refused with %q, got %v", name, row.says, got)
		}
	}
}

// https://docs.aws.amazon.com/autoscaling/ec2/userguide/prepare-for-lifecycle-notifications.html
func TestHookNotice_IsIgnored(t *testing.T) {
	success := sample(t, "launch-hook")
	success["detail-type"] = "EC2 Instance Launch Successful"
	for name, body := range map[string][]byte{
		"test notification": []byte(`{"AccountId":"123456789012","RequestId":"7a1b","AutoScalingGroupARN":"arn:aws:autoscaling:x","AutoScalingGroupName":"workers",` +
			`"Service":"AWS Auto Scaling","Event":"autoscaling:TEST_NOTIFICATION","Time":"2026-01-02T03:04:05.678Z"}`),
		"successful launch": marshal(t, success),
	} {
		p, err := event.Parse(body)
		if err != nil || len(p.Records) != 1 || !errors.Is(p.Records[0].Err, event.ErrIgnored) {
			t.Errorf("%s: want it ignored, got %+v, %v", name, p, err)
		}
	}
}

func TestWarmPool_OnlyTerminatingReturns(t *testing.T) {
	e := sample(t, "terminate-hook")
	e["detail"].(map[string]any)["Destination"] = "WarmPool"
	p, err := event.Parse(marshal(t, e))
	if err != nil || !p.Records[0].Event.Hook.Returns {
		t.Errorf("want an instance that returns, got %+v, %v", p, err)
	}
	e = sample(t, "launch-hook")
	e["detail"].(map[string]any)["Destination"] = "WarmPool"
	p, err = event.Parse(marshal(t, e))
	if err != nil || p.Records[0].Event.Hook.Returns {
		t.Errorf("want an instance that launches into the pool, got %+v, %v", p, err)
	}
}

func TestTagEvent_CountsForInstancesOnly(t *testing.T) {
	e := sample(t, "tag-change")
	p, err := event.Parse(marshal(t, e))
	if err != nil || p.Records[0].Err != nil || p.Records[0].Event.ID != "i-0123456789abcdef0" || p.Records[0].Event.State != facts.Pending {
		t.Errorf("want the event of the instance, got %+v, %v", p, err)
	}
	for name, row := range map[string]struct {
		resources any
		ignored   bool
	}{
		"a volume":          {[]string{"arn:aws:ec2:us-east-1:123456789012:volume/vol-0123456789abcdef0"}, true},
		"another service's": {[]string{"arn:aws:rds:us-east-1:123456789012:instance/i-0123456789abcdef0"}, true},
		"none":              {[]string{}, false},
		"no list":           {"x", false},
		"a made-up ID":      {[]string{"arn:aws:ec2:us-east-1:123456789012:instance/../x"}, false},
	} {
		e["resources"] = row.resources
		p, err := event.Parse(marshal(t, e))
		if err != nil || p.Records[0].Err == nil || errors.Is(p.Records[0].Err, event.ErrIgnored) != row.ignored || fault.KindOf(p.Records[0].Err) != fault.Refuse {
			t.Errorf("%s: want ignored %v, got %+v, %v", name, row.ignored, p, err)
		}
	}
}
