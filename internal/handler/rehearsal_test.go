package handler_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
)

const bundleInput = `"profiles":"cGFja2Vk"` // "packed"

func TestRehearsal_ChangesAndCountsNothing(t *testing.T) {
	for _, mode := range []string{"detect", "doctor"} {
		h, e := newReconcile()
		got := ""
		h.Rehearse = func(packed []byte) (handler.Rehearsal, error) {
			got = string(packed)
			return handler.Rehearsal{Reconciler: h.Reconciler, Doctor: e, Digest: "0123456789abcdef"}, nil
		}
		out, err := h.Invoke(t.Context(), []byte(`{"mode":"`+mode+`",`+bundleInput+`}`))
		if err != nil || !strings.Contains(string(out), `"mode":"`+mode+`"`) || got != "packed" {
			t.Fatalf("mode %s: want its answer by the input's profiles, got %s, %v", mode, out, err)
		}
		if metrics := e.bench.metrics.String(); strings.Contains(metrics, "Drift") || strings.Contains(metrics, "Reconciled") || strings.Contains(metrics, "SweepAge") {
			t.Errorf("mode %s: a rehearsal is no comparison of the fleet, and an alarm would take it for one: %s", mode, metrics)
		}
	}
}

func TestRehearsal_IsRefusedWhereItCouldAct(t *testing.T) {
	for payload, says := range map[string]string{
		`{"mode":"correct",` + bundleInput + `}`:                                     "profiles is for mode detect and doctor",
		`{` + bundleInput + `}`:                                                      "profiles is for mode detect and doctor",
		`{"mode":"teardown","confirm":"d",` + bundleInput + `}`:                      "profiles is for mode detect and doctor",
		`{"Records":[{"body":"{\"mode\":\"detect\",\"profiles\":\"cGFja2Vk\"}"}]}`:   "only for an invoker",
		`{"mode":"detect","gone":{"accounts":["123456789012"]},` + bundleInput + `}`: "profiles is for mode",
	} {
		h, _ := newReconcile()
		h.Rehearse = func([]byte) (handler.Rehearsal, error) {
			t.Errorf("%s: the profiles were loaded", payload)
			return handler.Rehearsal{}, nil
		}
		if out, err := h.Invoke(t.Context(), []byte(payload)); err == nil || fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: want it refused with %q, got %s, %v", payload, says, out, err)
		}
	}
	h, e := newReconcile()
	h.Rehearse = func([]byte) (handler.Rehearsal, error) { return handler.Rehearsal{}, fault.Refusef("worker: no") }
	for mode, says := range map[string]string{"detect": `"blocked":true,"blockedReason":"the profiles are refused: worker: no"`, "doctor": `"ok":false,"checks":[{"name":"profiles"`} {
		out, err := h.Invoke(t.Context(), []byte(`{"mode":"`+mode+`",`+bundleInput+`}`))
		if err != nil || !strings.Contains(string(out), says) || !strings.Contains(e.bench.log.String(), "the rehearsed profiles are refused") {
			t.Errorf("mode %s: want profiles that do not load refused in the answer, and no failed invocation, which would raise an alarm; got %s, %v, %s", mode, out, err, e.bench.log.String())
		}
	}
}

func TestNoProfiles_AllowARehearsalAlone(t *testing.T) {
	h, e := newReconcile()
	h.NoProfiles = errors.New("none is active")
	h.Rehearse = func([]byte) (handler.Rehearsal, error) {
		return handler.Rehearsal{Reconciler: h.Reconciler, Doctor: e, Digest: "0123456789abcdef"}, nil
	}
	if out, err := h.Invoke(t.Context(), []byte(`{"mode":"detect",`+bundleInput+`}`)); err != nil || !strings.Contains(string(out), `"blocked":false`) {
		t.Errorf("want the first profiles rehearsed, got %s, %v", out, err)
	}
	h.Deployment = "d"
	for _, payload := range []string{``, `{"mode":"correct"}`, `{"mode":"detect"}`, `{"mode":"doctor"}`, `{"mode":"teardown","confirm":"d"}`} {
		if out, err := h.Invoke(t.Context(), []byte(payload)); !errors.Is(err, h.NoProfiles) {
			t.Errorf("%s: want the reason, since without profiles each grant would count as too much, got %s, %v", payload, out, err)
		}
	}
}

func TestRefusedProfiles_AreCountedInEachInvocation(t *testing.T) {
	for _, refused := range []bool{true, false} {
		b := newBench()
		b.handler.Profiles.Digest = "0123456789abcdef"
		if refused {
			b.handler.Profiles.Refused = fault.Refusef("worker: no")
		}
		if _, err := b.handler.Invoke(t.Context(), []byte(body(id(1), "running", "2026-01-02T03:04:05Z"))); err != nil {
			t.Fatal(err)
		}
		if counted := strings.Contains(b.metrics.String(), `"ProfilesRefused":1`); counted != refused || !strings.Contains(b.log.String(), `"profiles":"0123456789ab"`) {
			t.Errorf("refused: %v, counted: %v; want the profiles in each line, got %s", refused, counted, b.log.String())
		}
	}
}
