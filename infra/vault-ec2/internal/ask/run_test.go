package ask

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// service answers Lambda's Invoke as scripted and records the requests.
type service struct {
	answers  []string // the last one is repeated
	failing  bool     // X-Amz-Function-Error
	status   int
	paths    []string
	received []string
	typing   string // the terminal's input
}

func (s *service) typed() io.Reader { return strings.NewReader(s.typing) }

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.paths = append(s.paths, r.Method+" "+r.URL.Path)
	s.received = append(s.received, string(body))
	if s.failing {
		w.Header().Set("X-Amz-Function-Error", "Unhandled")
	}
	if s.status != 0 {
		w.WriteHeader(s.status)
	}
	_, _ = io.WriteString(w, s.answers[min(len(s.received), len(s.answers))-1])
}

// command runs the command with options against the service.
func command(t *testing.T, s *service, o Options) (status int, stdout, stderr string, err error) {
	t.Helper()
	serve(t, s)
	o.Of = deployed.Choice{Function: "fleet-Reconcile"}
	var out, progress bytes.Buffer
	status, err = Run(t.Context(), o, Streams{In: s.typed(), Out: &out, Progress: &progress})
	return status, out.String(), progress.String(), err
}

// serve serves the service, and sets the environment in which a command finds it.
func serve(t *testing.T, s *service) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_LAMBDA": server.URL, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab",
		"AWS_PROFILE": "", "AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none,
	} {
		t.Setenv(name, value)
	}
}

// in returns the options of a mode.
func in(mode reconcile.Mode) Options { return Options{Input: reconcile.Input{Mode: mode}} }

const (
	firstPart = `{"mode":"correct","scanned":{"records":2},"drift":[{"instanceId":"i-0a","object":"policy","reason":"missing","action":"create"}],
		"summary":{"missing":1,"corrected":1},"truncated":true,"durationMs":1000,"cursor":{"after":"i-0a"}}`
	secondPart = `{"mode":"correct","scanned":{"records":4},"drift":[{"instanceId":"i-0b","object":"policy","reason":"missing","action":"create"}],
		"summary":{"missing":2,"corrected":2},"truncated":false,"durationMs":1500}`
)

func TestRun_JoinsInvocationsIntoOneAnswer(t *testing.T) {
	s := &service{answers: []string{firstPart, secondPart}}
	status, out, progress, err := command(t, s, Options{Input: reconcile.Input{Mode: reconcile.Correct, Profile: "worker", InstanceIDs: []string{"i-0a", "i-0b"}, Force: true}})
	if err != nil || status != done {
		t.Fatalf("status %d, %v", status, err)
	}
	base := `{"mode":"correct","instanceIds":["i-0a","i-0b"],"profile":"worker","force":true`
	want := []string{base + "}", base + `,"cursor":{"after":"i-0a"}}`}
	if len(s.received) != 2 || s.received[0] != want[0] || s.received[1] != want[1] {
		t.Errorf("sent %q, want the same input with the cursor added: %q", s.received, want)
	}
	if s.paths[0] != "POST /2015-03-31/functions/fleet-Reconcile/invocations" {
		t.Errorf("called %s", s.paths[0])
	}
	golden(t, "several-invocations", out)
	if !strings.Contains(progress, "2 records so far") {
		t.Errorf("want a progress line for a run that continues, got %q", progress)
	}
}

func TestRun_SendsTheOperatorsWord(t *testing.T) {
	s := &service{answers: []string{`{"mode":"detect","drift":[],"summary":{"orphaned":7}}`}}
	status, _, progress, err := command(t, s, Options{
		Input: reconcile.Input{Mode: reconcile.Detect}, Gone: reconcile.Gone{Accounts: []string{"111122223333"}, InstanceIDs: []string{"i-0a"}},
	})
	if err != nil || status != undone || !strings.Contains(progress, "--mode correct --force --at-most 7") {
		t.Errorf("want the flags of the removal, got status %d, %v, %q", status, err, progress)
	}
	running := &service{answers: []string{`{"mode":"detect","drift":[],"summary":{"orphaned":7,"failed":7},"blocked":true}`}}
	_, _, progress, err = command(t, running, Options{Input: reconcile.Input{Mode: reconcile.Detect}, Gone: reconcile.Gone{Accounts: []string{"111122223333"}}})
	if err != nil || strings.Contains(progress, "to remove them") {
		t.Errorf("want no flags where EC2 shows each instance as running, got %v, %q", err, progress)
	}
	_, _, _, err = command(t, s, Options{
		Input: reconcile.Input{Mode: reconcile.Correct, Force: true}, Gone: reconcile.Gone{Accounts: []string{"111122223333"}, AtMost: 7},
	})
	want := []string{`{"mode":"detect","gone":{"accounts":["111122223333"],"instanceIds":["i-0a"]}}`,
		`{"mode":"correct","force":true,"gone":{"accounts":["111122223333"],"atMost":7}}`}
	if err != nil || len(s.received) != 2 || s.received[0] != want[0] || s.received[1] != want[1] {
		t.Errorf("want %q, got %q, %v", want, s.received, err)
	}
}

func TestRun_AsJSONHasEveryRowAndNoCursor(t *testing.T) {
	_, out, _, err := command(t, &service{answers: []string{firstPart, secondPart}}, Options{Input: reconcile.Input{Mode: reconcile.Correct}, JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal([]byte(out), &a); err != nil || len(a.Drift) != 2 || a.Cursor != nil || a.Truncated || a.Scanned.Records != 4 || a.DurationMs != 1500 {
		t.Errorf("want both rows, the last counts and the whole time, got %s (%v)", out, err)
	}
}

func TestRun_MarksRowsBeyondTheLimit(t *testing.T) {
	part := func(rows int, partial bool) answer {
		a := answer{Answer: reconcile.Answer{Mode: reconcile.Detect, Drift: make([]reconcile.Drift, rows), Truncated: partial}}
		if partial {
			a.Cursor = json.RawMessage(`{"n":1}`)
		}
		return a
	}
	for name, c := range map[string]struct {
		parts     []answer
		rows      int
		truncated bool
	}{
		"too many in one invocation":      {[]answer{part(maxRows, true), part(0, false)}, maxRows, true},
		"too many in several":             {[]answer{part(150, true), part(51, false)}, maxRows, true},
		"a run that was only interrupted": {[]answer{part(150, true), part(50, false)}, maxRows, false},
	} {
		var whole answer
		for _, p := range c.parts {
			whole = whole.join(p)
		}
		if len(whole.Drift) != c.rows || whole.Truncated != c.truncated {
			t.Errorf("%s: got %d rows and truncated %v, want %d and %v", name, len(whole.Drift), whole.Truncated, c.rows, c.truncated)
		}
	}
}

func TestRun_KeepsBlockOfEarlierInvocation(t *testing.T) {
	first := answer{Answer: reconcile.Answer{Blocked: true, BlockedReason: "EC2 could not be listed"}, Cursor: json.RawMessage(`{"n":1}`)}
	if whole := first.join(answer{}); !whole.Blocked || whole.BlockedReason != "EC2 could not be listed" {
		t.Errorf("got %+v", whole)
	}
}

func TestRun_EndsWithoutProgress(t *testing.T) {
	s := &service{answers: []string{firstPart}}
	if status, _, _, err := command(t, s, in(reconcile.Correct)); status != broken || err == nil || !strings.Contains(err.Error(), "makes no progress") || len(s.received) != 2 {
		t.Errorf("want an end after the second equal cursor, got status %d after %d calls: %v", status, len(s.received), err)
	}
}

func TestExitStatus_SeparatesDriftFromFailure(t *testing.T) {
	for name, c := range map[string]struct {
		service service
		options Options
		status  int
		err     string
	}{
		"no drift":              {service: service{answers: []string{`{"mode":"detect","drift":[],"cursor":null}`}}, status: done},
		"drift":                 {service: service{answers: []string{`{"mode":"detect","summary":{"changed":1}}`}}, status: undone},
		"doctor content":        {service: service{answers: []string{`{"mode":"doctor","ok":true,"checks":[]}`}}, options: in(reconcile.Doctor), status: done},
		"doctor not content":    {service: service{answers: []string{`{"mode":"doctor","ok":false,"checks":[]}`}}, options: Options{Input: reconcile.Input{Mode: reconcile.Doctor}, JSON: true}, status: undone},
		"the function failed":   {service: service{answers: []string{`{"errorType":"errorString","errorMessage":"reading the environment"}`}, failing: true}, status: broken, err: "reading the environment"},
		"no such function":      {service: service{answers: []string{`{"Message":"Function not found"}`}, status: 404}, status: broken, err: "fleet-Reconcile"},
		"Lambda is out of step": {service: service{answers: []string{`{}`}, status: 503}, status: broken, err: "503"},
		"not JSON":              {service: service{answers: []string{`<html>`}}, status: broken, err: "reading the answer"},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.service
			o := c.options
			o.Input.Mode = cmp.Or(o.Input.Mode, reconcile.Detect)
			status, _, _, err := command(t, &s, o)
			if status != c.status || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("status %d (%v), want %d with %q", status, err, c.status, c.err)
			}
			if len(s.received) != 1 {
				t.Errorf("invoked %d times: a run must never run twice by itself", len(s.received))
			}
		})
	}
}

func TestOptions_BadCombinationsAreRefused(t *testing.T) {
	gone := reconcile.Gone{Accounts: []string{"111122223333"}}
	counted := reconcile.Gone{Accounts: []string{"111122223333"}, AtMost: 3}
	for name, o := range map[string]Options{
		"an unknown mode":       in("repair"),
		"no mode":               {},
		"force to look":         {Input: reconcile.Input{Mode: reconcile.Detect, Force: true}},
		"doctor of an instance": {Input: reconcile.Input{Mode: reconcile.Doctor, InstanceIDs: []string{"i-0a"}}},
		"a name, no teardown":   {Input: reconcile.Input{Mode: reconcile.Correct, Confirm: "prod"}},
		"gone, not forced":      {Input: reconcile.Input{Mode: reconcile.Correct}, Gone: counted},
		"gone, no number":       {Input: reconcile.Input{Mode: reconcile.Correct, Force: true}, Gone: gone},
		"gone, torn down":       {Input: reconcile.Input{Mode: reconcile.Teardown}, Gone: gone},
		"a number of nothing":   {Input: reconcile.Input{Mode: reconcile.Correct, Force: true}, Gone: reconcile.Gone{AtMost: 3}},
		"gone and compared":     {Input: reconcile.Input{Mode: reconcile.Detect, Profile: "p"}, Gone: gone},
	} {
		s := &service{answers: []string{`{}`}}
		if status, _, _, err := command(t, s, o); err == nil || status != broken || len(s.received) > 0 {
			t.Errorf("%s: want status %d and no invocation, got %d, %v, %q", name, broken, status, err, s.received)
		}
	}
	if status, err := Run(t.Context(), in(reconcile.Detect), Streams{}); err == nil || status != broken || !strings.Contains(err.Error(), "--stack") {
		t.Errorf("want the ways to name a deployment, got %d, %v", status, err)
	}
}
