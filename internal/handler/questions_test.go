package handler_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/holders"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// asked answers questions, and keeps them.
type asked struct {
	explain reconcile.Input
	find    holders.Question
	next    string
}

func (a *asked) Explain(_ context.Context, in reconcile.Input) reconcile.Explanation {
	a.explain = in
	return reconcile.Explanation{Mode: reconcile.Explain, InstanceID: in.InstanceIDs[0]}
}

func (a *asked) Find(_ context.Context, q holders.Question) holders.Answer {
	a.find = q
	return holders.Answer{Mode: "who", Next: a.next}
}

func newQuestions() (*handler.ReconcileHandler, *empty, *asked) {
	h, e := newReconcile()
	a := &asked{}
	h.Explainer, h.Finder, h.Namespace = a, a, "team/a"
	return h, e, a
}

func TestQuestions_AreAnsweredAndNotCounted(t *testing.T) {
	h, e, a := newQuestions()
	h.NoProfiles = errors.New("no profiles are active") // a question is about what is there
	out, err := h.Invoke(t.Context(), []byte(`{"mode":"explain","instanceIds":["i-0123456789abcdef0"],"account":"123456789012","region":"us-east-1"}`))
	if err != nil || !strings.Contains(string(out), `"mode":"explain"`) || !strings.Contains(string(out), `"namespace":"team/a"`) || a.explain.Region != "us-east-1" {
		t.Errorf("got %s, %v, %+v", out, err, a.explain)
	}
	a.next = "instance#i-0123456789abcdef0"
	out, err = h.Invoke(t.Context(), []byte(`{"mode":"who","names":["web-1"],"current":true}`))
	if err != nil || !strings.Contains(string(out), `"cursor":{"after":"instance#i-0123456789abcdef0","limit":1`) || !a.find.Current || a.find.After != "" {
		t.Errorf("want the cursor of the next page, got %s, %v, %+v", out, err, a.find)
	}
	a.next = ""
	out, err = h.Invoke(t.Context(), []byte(`{"mode":"who","names":["web-1"],"cursor":{"after":"instance#i-0a","limit":1}}`))
	if err != nil || strings.Contains(string(out), "cursor") || a.find.After != "instance#i-0a" || a.find.Names[0] != "web-1" {
		t.Errorf("want the end, got %s, %v, %+v", out, err, a.find)
	}
	if metrics := e.bench.metrics.String(); strings.Contains(metrics, "Drift") || strings.Contains(metrics, "Reconciled") || strings.Contains(metrics, "Blocked") {
		t.Errorf("a question is no comparison of the fleet, and an alarm would take it for one: %s", metrics)
	}
	if len(e.own) > 0 {
		t.Errorf("want nothing sent, got %q", e.own)
	}
}

func TestQuestions_AreRefusedInAnotherForm(t *testing.T) {
	for payload, says := range map[string]string{
		`{"mode":"explain"}`: "one instance", `{"mode":"who"}`: "needs 1 to 200 names", `{"mode":"who","name":"web-1"}`: "unknown field",
		`{"mode":"explain","instanceId":"i-0123456789abcdef0"}`:                                         "unknown field",
		`{"Records":[{"body":"{\"mode\":\"who\",\"names\":[\"web-1\"]}"}]}`:                             "only an invoker",
		`{"Records":[{"body":"{\"mode\":\"explain\",\"instanceIds\":[\"i-0123456789abcdef0\"]}"}]}`:     "only an invoker",
		`{"mode":"explain","instanceIds":["i-0123456789abcdef0"],"profiles":"cGFja2Vk"}`:                "only reads",
		`{"mode":"explain","instanceIds":["i-0123456789abcdef0"],"gone":{"accounts":["123456789012"]}}`: "only reads",
	} {
		h, _, a := newQuestions()
		out, err := h.Invoke(t.Context(), []byte(payload))
		if err == nil || fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), says) || len(a.find.Names)+len(a.explain.InstanceIDs) > 0 {
			t.Errorf("%s: want it refused with %q, got %s, %v", payload, says, out, err)
		}
	}
}
