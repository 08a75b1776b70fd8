package handler_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe/observetest"
)

// lines returns the lines of the log, parsed.
func (b *bench) lines(t *testing.T) []map[string]any {
	t.Helper()
	var out []map[string]any
	for text := range strings.Lines(b.log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("the log line %q is no JSON: %v", text, err)
		}
		out = append(out, line)
	}
	return out
}

func TestLogLine_HasListedKeysAndInvocation(t *testing.T) {
	b := newBench()
	b.errs[id(1)], b.errs[id(2)], b.errs[id(3)], b.errs[id(4)] = fault.Refusef("no"), fault.Conflictf("no"), errors.New("down"), errPanics
	for n, action := range []converge.Action{converge.Deprovisioned, converge.Unmatched, converge.Unchanged, converge.LeftAlone} {
		b.outcomes[id(5+n)] = converge.Outcome{Action: action, CutAt: b.now}
	}
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "r-1"})
	ctx = context.WithValue(ctx, "x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1") //nolint:staticcheck // aws-lambda-go's key
	bodies := []string{"{", strings.Replace(body(id(9), "running", at), "aws.ec2", "aws.s3", 1)}
	bodies = append(bodies, runs(9)...)
	b.batch(ctx, t, bodies...)
	lines := b.lines(t)
	if len(lines) != len(bodies) {
		t.Errorf("want a line for each of %d events, got %d:\n%s", len(bodies), len(lines), b.log.String())
	}
	for _, line := range lines {
		for k := range line {
			if !slices.Contains(observetest.Keys(), k) {
				t.Errorf("the key %q is not in observe.Keys: queries and subscriptions do not know it\n%v", k, line)
			}
		}
		if line[observe.KeyRequest] != "r-1" || line[observe.KeyTrace] != "1-5759e988-bd862e3fe1be46a994272793" {
			t.Errorf("want the request's and the trace's ID in every line, got %v", line)
		}
		if id, named := line[observe.KeyInstance]; named && (id == "" || line[observe.KeyAccount] != "123456789012" || line[observe.KeyRegion] != "us-east-1") {
			t.Errorf("want account and region beside the instance, got %v", line)
		}
	}
}

func TestRemovalTime_RunsFromEventToCut(t *testing.T) {
	b := newBench()
	eventTime, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	b.outcomes[id(1)] = converge.Outcome{Action: converge.Deprovisioned, Paths: []string{"auth/aws/role/x"}, CutAt: eventTime.Add(1500 * time.Millisecond)}
	b.batch(t.Context(), t, body(id(1), "terminated", at))
	b.wrote(t, `"TimeToCutOff":[1500]`, `"Deprovisioned":1`) // whatever the rest of the removal takes
	b.metrics.Reset()
	b.log.Reset()
	b.outcomes[id(1)] = converge.Outcome{Action: converge.Deprovisioned, Paths: []string{"auth/aws/role/x"}, CutAt: eventTime.Add(time.Minute), SecondCut: true}
	b.batch(t.Context(), t, body(id(1), "terminated", at))
	if strings.Contains(b.metrics.String(), "Deprovisioned") || strings.Contains(b.log.String(), audit.Removed) {
		t.Errorf("want the second token cut neither counted nor audited as another removal: %s%s", b.metrics.String(), b.log.String())
	}
}

func TestMessageAge_IsTakenWhenWorkBegins(t *testing.T) {
	b := newBench()
	payload, err := json.Marshal(map[string]any{"Records": []any{map[string]any{
		"messageId": "m", "body": body(id(0), "running", at),
		"attributes": map[string]string{"SentTimestamp": strconv.FormatInt(b.now.Add(-7*time.Second).UnixMilli(), 10)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.handler.Invoke(t.Context(), payload); err != nil {
		t.Fatal(err)
	}
	b.wrote(t, `"QueueAge":[7000]`)
}

func TestServiceTimes_BelongToTheirInvocation(t *testing.T) {
	b := newBench()
	b.handler.Services = &observe.Services{}
	b.handler.Services.EC2.Observe(20*time.Millisecond, true)
	b.batch(t.Context(), t, body(id(0), "running", at))
	if m := b.metrics.String(); !strings.Contains(m, `"EC2Throttles":1`) || !strings.Contains(m, `"EC2Latency":{"Values":[`) || strings.Contains(m, "VaultLatency") {
		t.Errorf("want the one throttled call to EC2 and no other, got %s", m)
	}
}

func TestSweepAge_NeedsTheWholeFleet(t *testing.T) {
	for payload, want := range map[string]bool{
		`{"mode":"detect"}`: true, `{"detail-type":"Scheduled Event"}`: true,
		`{"instanceIds":["i-0123456789abcdef0"]}`: false, `{"profile":"a-worker"}`: false,
		`{"cursor":{"limit":100,"startedMs":1767323040000}}`: true,
	} {
		h, e := newReconcile()
		e.took = time.Second
		if _, err := h.Invoke(t.Context(), []byte(payload)); err != nil {
			t.Fatal(err)
		}
		m := e.bench.metrics.String()
		if strings.Contains(m, observe.SweepAge) != want {
			t.Errorf("%s: want SweepAge written: %v, got %s", payload, want, m)
		}
		// The bench's clock begins at 03:04:10: the run of the cursor began ten seconds before.
		if strings.Contains(payload, "cursor") && !strings.Contains(m, `"SweepAge":[11000]`) {
			t.Errorf("want the age since the run began, not since this invocation did, got %s", m)
		}
	}
}

// bus records the events it gets, or is down.
type bus struct {
	events []audit.Event
	down   bool
}

func (b *bus) Put(_ context.Context, events []audit.Event) []error {
	if b.down {
		return make([]error, len(events))
	}
	b.events = append(b.events, events...)
	return nil
}

func TestAudit_EachChangeIsOneEvent(t *testing.T) {
	b, to := newBench(), &bus{}
	b.handler.Bus = to
	b.errs[id(1)], b.errs[id(2)], b.errs[id(3)] = fault.Refusef("two profiles"), fault.Conflictf("not ours"), errors.New("down")
	b.outcomes[id(4)] = converge.Outcome{Action: converge.Deprovisioned, CutAt: b.now, Paths: []string{"auth/aws/role/i-00000004"}}
	b.outcomes[id(5)] = converge.Outcome{Action: converge.Unchanged}
	b.outcomes[id(6)] = converge.Outcome{Action: converge.Deprovisioned, CutAt: b.now, SecondCut: true}
	b.batch(t.Context(), t, runs(7)...)
	got := map[string]string{}
	for _, e := range to.events {
		d := e.Detail
		got[d.InstanceID] += e.Type
		if d.Deployment != "d" || d.Function != "provision" || d.Account != "123456789012" || d.Region != "us-east-1" || !e.Time.Equal(b.now) {
			t.Errorf("want deployment, function, place and time in every event, got %+v", e)
		}
		if (d.InstanceID == id(1) && (d.Kind != "refuse" || d.Error != "two profiles")) || (d.InstanceID == id(4) && len(d.Objects) != 1) {
			t.Errorf("got %+v", d)
		}
	}
	want := map[string]string{id(0): audit.Granted, id(1): audit.Refused, id(2): audit.Conflict, id(4): audit.Removed}
	if !maps.Equal(got, want) {
		t.Errorf("want %v, got %v: a result that changes nothing, or is to be retried, has no event", want, got)
	}
}

func TestAudit_BusDownChangesNoAnswer(t *testing.T) {
	b := newBench()
	b.handler.Bus = &bus{down: true}
	if again := b.batch(t.Context(), t, runs(2)...); len(again) != 0 {
		t.Errorf("want no message delivered again for a fault of the event bus, got %v", again)
	}
	b.wrote(t, `"AuditFailed":2`, `"Provisioned":2`)
}

// No other run reports it: the instance's own terminated event finds it removed.
func TestTakeOver_LogsTheRemovedHolder(t *testing.T) {
	for name, failed := range map[string]error{"granted": nil, "refused afterwards": fault.Refusef("no")} {
		b := newBench()
		b.outcomes[id(1)] = converge.Outcome{Action: converge.Provisioned, RemovedHolders: []converge.RemovedHolder{{
			Ref:     facts.Ref{ID: id(2), Place: facts.Place{Account: "210987654321", Region: "eu-west-1"}},
			Outcome: converge.Outcome{Action: converge.Deprovisioned, Profile: "a-worker", FQDN: "x.example", Paths: []string{"auth/aws/role/x"}, Cut: 1},
		}}}
		b.errs[id(1)] = failed
		b.batch(t.Context(), t, body(id(1), "running", at))
		reported := false
		for _, line := range b.lines(t) {
			isHolder := line[observe.KeyInstance] == id(2) && line[observe.KeyAccount] == "210987654321" && line[observe.KeyRegion] == "eu-west-1"
			reported = reported || (line[observe.KeyAudit] == audit.Removed && isHolder && line[observe.KeyTakenBy] == id(1))
		}
		if !reported || !strings.Contains(b.metrics.String(), `"Deprovisioned":1`) {
			t.Errorf("%s: want the holder's removal logged, counted and on the bus, with the instance that takes its name:\n%s\n%s", name, b.log.String(), b.metrics.String())
		}
	}
}
