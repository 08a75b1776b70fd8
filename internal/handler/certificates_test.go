package handler_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/certificates"
)

// sweeper answers mode certificates.
type sweeper struct {
	answer certificates.Answer
	issued []certificates.Issued
}

func (s *sweeper) Sweep(context.Context) certificates.Answer { return s.answer }
func (s *sweeper) Record(_ context.Context, issued []certificates.Issued) certificates.Answer {
	s.issued = issued
	return s.answer
}

const (
	scheduled = `{"detail-type":"Scheduled Event"}`
	queued    = `{"mode":"certificates"}`
)

func fromQueue(body string) []byte {
	text, _ := json.Marshal(map[string]any{"Records": []any{map[string]string{"body": body}}})
	return text
}

// The certificates of the last hour are looked for after each scheduled comparison, and go on by the queue.
func TestCertificates_AreLookedForAfterScheduledRuns(t *testing.T) {
	more := certificates.Answer{Mounts: []certificates.Mount{{Read: 5, Left: 7}}}
	for name, row := range map[string]struct {
		payload []byte
		answer  certificates.Answer
		off     bool
		want    []string
	}{
		"a scheduled comparison":          {[]byte(scheduled), more, false, []string{queued}},
		"one without the feature":         {[]byte(scheduled), more, true, nil},
		"one by hand":                     {[]byte(`{}`), more, false, nil},
		"one of some instances":           {fromQueue(`{"instanceIds":["i-0123456789abcdef0"]}`), more, false, nil},
		"a run with certificates left":    {fromQueue(queued), more, false, []string{queued}},
		"the same by hand":                {[]byte(queued), more, false, nil},
		"a run that reads none":           {fromQueue(queued), certificates.Answer{Mounts: []certificates.Mount{{Left: 7}}}, false, nil},
		"a run that is done":              {fromQueue(queued), certificates.Answer{Mounts: []certificates.Mount{{Read: 5}}, Complete: true}, false, nil},
		"certificates of the audit log":   {[]byte(`{"mode":"certificates","issued":[{"path":"p/issue/i-0","serial":"0a","expires":1}]}`), certificates.Answer{}, false, nil},
		"the schedule of a detecting run": {fromQueue(`{"mode":"detect"}`), more, false, []string{queued}},
	} {
		t.Run(name, func(t *testing.T) {
			h, e := newReconcile()
			s := &sweeper{answer: row.answer}
			if !row.off {
				h.Sweeper = s
			}
			if _, err := h.Invoke(t.Context(), row.payload); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(e.own, row.want) {
				t.Errorf("want %q sent to the queue, got %q", row.want, e.own)
			}
			if has := strings.Contains(string(row.payload), "issued"); has != (len(s.issued) == 1) {
				t.Errorf("want the named certificates recorded: %v, got %v", has, s.issued)
			}
		})
	}
}

func TestCertificates_ModeTakesNothingElse(t *testing.T) {
	h, _ := newReconcile()
	h.Sweeper = &sweeper{}
	for _, payload := range []string{
		`{"mode":"certificates","instanceIds":["i-0123456789abcdef0"]}`, `{"mode":"certificates","force":true}`, `{"mode":"certificates","confirm":"x"}`,
		`{"mode":"certificates","cursor":{"after":"x","limit":1}}`, `{"mode":"correct","issued":[{"path":"p","serial":"0a"}]}`, `{"issued":[{"path":"p"}]}`,
		`{"mode":"certificates","names":["x"]}`, `{"mode":"certificates","issued":[` + strings.TrimSuffix(strings.Repeat(`{"path":"p"},`, 1001), ",") + `]}`,
	} {
		if _, err := h.Invoke(t.Context(), []byte(payload)); err == nil {
			t.Errorf("%.80s: want it refused, got no error", payload)
		}
	}
}
