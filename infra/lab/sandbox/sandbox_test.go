package sandbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sandbox")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "bootstrap")
		build := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", binary, "../internal/testfunctions/misbehaving")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

func function(t *testing.T, timeout time.Duration, concurrency int, env map[string]string) *Function {
	t.Helper()
	f := NewFunction(Options{
		Name: "tried", ARN: "arn:aws:lambda:us-east-1:123456789012:function:tried", Binary: binary,
		Env: env, Timeout: timeout, Log: filepath.Join(t.TempDir(), "function.log"),
	}, concurrency)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("closing the function: %v", err)
		}
	})
	return f
}

type answer struct {
	PID                            int
	Text, ARN, Home, Greeting, Why string
	Request                        string
	Left                           float64
}

func invoke(t *testing.T, f *Function, do, text string) (Result, answer) {
	t.Helper()
	event, _ := json.Marshal(map[string]string{"Do": do, "Text": text})
	r, err := f.Invoke(t.Context(), event)
	if err != nil {
		t.Fatalf("invoking with %q: %v\nlogs:\n%s", do, err, f.Logs())
	}
	var a answer
	if r.FunctionError == "" {
		if err := json.Unmarshal(r.Payload, &a); err != nil {
			t.Fatalf("the answer to %q is no JSON: %v: %s", do, err, r.Payload)
		}
	}
	return r, a
}

func TestFunction_AnswersAndStaysWarm(t *testing.T) {
	f := function(t, 5*time.Second, 1, map[string]string{"GREETING": "hello"})
	r1, a1 := invoke(t, f, "answer", "one")
	r2, a2 := invoke(t, f, "answer", "two")
	if a1.Text != "one" || a1.ARN != "arn:aws:lambda:us-east-1:123456789012:function:tried" || a1.Request != r1.RequestID || a1.Greeting != "hello" {
		t.Errorf("the function should see its event, its ARN, its request and its variables: %+v", a1)
	}
	if a1.Left < 4 || a1.Left > 5 {
		t.Errorf("the deadline should be 5 s away, seen %.1f s", a1.Left)
	}
	if a1.Home != "" {
		t.Errorf("the developer's HOME leaked into the function: %q", a1.Home)
	}
	if a1.PID != a2.PID || r1.Init == 0 || r2.Init != 0 {
		t.Errorf("expected one cold start and one warm: pids %d, %d; init %s, %s", a1.PID, a2.PID, r1.Init, r2.Init)
	}
	t.Logf("init %s, warm invocation %s", r1.Init, r2.Duration)
}

func TestFunction_FailureKeepsTheProcess(t *testing.T) {
	f := function(t, 5*time.Second, 1, nil)
	_, before := invoke(t, f, "answer", "")
	r, _ := invoke(t, f, "fail", "no luck")
	if r.ErrorType != "errorString" || r.ErrorMessage != "no luck" {
		t.Errorf("expected errorString: no luck, seen %s", r.Payload)
	}
	if _, after := invoke(t, f, "answer", ""); after.PID != before.PID {
		t.Error("an error should not end the process")
	}
}

func TestFunction_DeathIsReportedAndRestarted(t *testing.T) {
	f := function(t, 5*time.Second, 1, nil)
	_, before := invoke(t, f, "answer", "")
	for _, step := range []struct{ do, kind, message string }{
		{"panic", "string", "boom"},
		{"exit", "Runtime.ExitError", "exit status 3"},
	} {
		r, _ := invoke(t, f, step.do, "boom")
		if r.FunctionError != "Unhandled" || r.ErrorType != step.kind || !strings.Contains(r.ErrorMessage, step.message) {
			t.Errorf("after %s expected %s with %q, seen %s", step.do, step.kind, step.message, r.Payload)
		}
		r, after := invoke(t, f, "answer", "")
		if r.FunctionError != "" || after.PID == before.PID || r.Init == 0 {
			t.Errorf("after %s expected a new process to answer, seen %+v", step.do, r)
		}
		before = after
	}
}

func TestFunction_IsKilledAtItsDeadline(t *testing.T) {
	f := function(t, 400*time.Millisecond, 1, nil)
	invoke(t, f, "answer", "")
	begun := time.Now()
	r, _ := invoke(t, f, "hang", "")
	if !strings.Contains(r.ErrorMessage, "Task timed out after 0.40 seconds") || time.Since(begun) > 2*time.Second {
		t.Errorf("expected a timeout after 0.4 s, seen %s after %s", r.Payload, time.Since(begun))
	}
	if r, _ := invoke(t, f, "answer", ""); r.FunctionError != "" {
		t.Errorf("the next event should be answered, seen %v", r.Err())
	}
}

func TestFunction_FailedInitIsReportedEachTime(t *testing.T) {
	f := function(t, time.Second, 1, map[string]string{"BREAK_INIT": "1"})
	for range 2 {
		r, _ := invoke(t, f, "answer", "")
		if r.ErrorType != "Runtime.ExitError" || !strings.Contains(r.ErrorMessage, "exit status 4") {
			t.Errorf("expected Runtime.ExitError with status 4, seen %s", r.Payload)
		}
	}
	if n := strings.Count(f.Logs(), "the init phase fails"); n != 2 {
		t.Errorf("expected two starts in the logs, seen %d:\n%s", n, f.Logs())
	}
}

func TestFunction_KillLosesOnlyTheEvent(t *testing.T) {
	f := function(t, 20*time.Second, 1, nil)
	invoke(t, f, "answer", "")
	done := make(chan Result, 1)
	go func() {
		r, _ := f.Invoke(t.Context(), []byte(`{"Do":"wait"}`))
		done <- r
	}()
	for !strings.Contains(f.Logs(), "doing wait") {
		time.Sleep(5 * time.Millisecond)
	}
	if err := f.Kill(); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.ErrorType != "Runtime.ExitError" || !strings.Contains(r.ErrorMessage, "signal: killed") {
		t.Errorf("expected Runtime.ExitError by signal, seen %s", r.Payload)
	}
	if r, _ := invoke(t, f, "answer", ""); r.FunctionError != "" {
		t.Errorf("the next event should be answered, seen %v", r.Err())
	}
}

func TestInvocations_SpreadUpToTheLimit(t *testing.T) {
	f := function(t, 10*time.Second, 2, nil)
	var mu sync.Mutex
	pids := map[int]int{}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			r, err := f.Invoke(t.Context(), []byte(`{"Do":"nap"}`))
			var a answer
			if err != nil || json.Unmarshal(r.Payload, &a) != nil {
				t.Errorf("invoking: %v, %s", err, r.Payload)
				return
			}
			mu.Lock()
			pids[a.PID]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(pids) != 2 || f.ColdStarts() != 2 {
		t.Errorf("expected two processes for six invocations, seen %v and %d cold starts", pids, f.ColdStarts())
	}
}

func TestFunction_CloseSendsSIGTERMFirst(t *testing.T) {
	f := function(t, 5*time.Second, 1, nil)
	invoke(t, f, "answer", "")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(f.Logs(), "received SIGTERM") {
		t.Errorf("the function should have received SIGTERM; logs:\n%s", f.Logs())
	}
	if _, err := f.Invoke(t.Context(), nil); err == nil {
		t.Error("a closed function accepted an event")
	}
}
