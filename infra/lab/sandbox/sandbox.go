package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// initLimit is Lambda's limit for a process's start before the first event.
const initLimit = 10 * time.Second

// endGrace is Lambda's time between SIGTERM and SIGKILL.
const endGrace = 500 * time.Millisecond

// Options describe a function.
type Options struct {
	Name     string            // the function's name
	ARN      string            // sent to the function with each event
	Binary   string            // the bootstrap binary
	Env      map[string]string // the function's variables, region and credentials included
	Timeout  time.Duration     // the deadline of one invocation (3 s)
	MemoryMB int               // sent to the function, not enforced (128)
	Log      string            // file that receives the function's output
}

// Result is the result of an invocation, as the Invoke API reports it.
type Result struct {
	RequestID     string
	Payload       []byte        // the answer, or the error as JSON
	FunctionError string        // "" or "Unhandled"
	ErrorType     string        // of a failure, for example Runtime.ExitError
	ErrorMessage  string        // of a failure
	Duration      time.Duration // from the event to the answer
	Init          time.Duration // of a cold start; 0 for a warm one
}

// Err returns the failure as an error, or nil.
func (r Result) Err() error {
	if r.FunctionError == "" {
		return nil
	}
	return fmt.Errorf("%s: %s", r.ErrorType, r.ErrorMessage)
}

// Sandbox holds at most one process of the function and sends it one event at a
// time.
type Sandbox struct {
	opts Options
	logs *ring
	turn chan struct{} // holds one token while no invocation runs

	mu   sync.Mutex
	proc *parts.Process
	api  *runtimeAPI
}

// newSandbox returns a sandbox. Its process starts with the first invocation.
func newSandbox(o Options, logs *ring) *Sandbox {
	o.Timeout = cmp.Or(o.Timeout, 3*time.Second)
	o.MemoryMB = cmp.Or(o.MemoryMB, 128)
	o.ARN = cmp.Or(o.ARN, "arn:aws:lambda:us-east-1:"+parts.AccountID+":function:"+o.Name)
	s := &Sandbox{opts: o, logs: logs, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// Invoke sends the event to the function and waits for its answer. If the function
// fails, dies or runs out of time, that is a Result. An error means that the lab
// could not run the function, or that ctx is done.
func (s *Sandbox) Invoke(ctx context.Context, payload []byte) (Result, error) {
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return Result{}, fmt.Errorf("waiting for the sandbox of %s: %w", s.opts.Name, ctx.Err())
	}
	inv := &invocation{id: requestID(), arn: s.opts.ARN, payload: payload, outcome: make(chan outcome, 1)}
	var initTime time.Duration
	for {
		cold, failed, err := s.ensureStarted(ctx, inv.id)
		if err != nil || failed != nil {
			return cmp.Or(failed, &Result{}).withInit(cold), err
		}
		initTime += cold
		inv.deadline = time.Now().Add(s.opts.Timeout)
		select {
		case s.api.next <- inv:
			result, err := s.await(ctx, inv)
			s.report(result, initTime)
			return result.withInit(initTime), err
		case <-s.proc.Done():
			// It died between two events; as Lambda does, start a new one and lose nothing.
		case <-ctx.Done():
			return Result{}, fmt.Errorf("sending an event to %s: %w", s.opts.Name, ctx.Err())
		case <-time.After(s.opts.Timeout):
			// The process is still busy with work after its last answer: the event's time is up anyway.
			return s.timedOut(inv.id), nil
		}
	}
}

// await waits for the answer to an event that the process has received.
func (s *Sandbox) await(ctx context.Context, inv *invocation) (Result, error) {
	begun := time.Now()
	fmt.Fprintf(s.logs, "START RequestId: %s\n", inv.id)
	var result Result
	select {
	case out := <-inv.outcome:
		result = Result{RequestID: inv.id, Payload: out.body}
		if out.failed {
			result = failed(inv.id, out.body)
		}
	case <-s.proc.Done():
		select {
		case out := <-inv.outcome: // it answered just before its end, as after a panic
			result = failed(inv.id, out.body)
			if !out.failed {
				result = Result{RequestID: inv.id, Payload: out.body}
			}
		default:
			result = s.exited(inv.id)
		}
	case <-time.After(time.Until(inv.deadline)):
		result = s.timedOut(inv.id)
	case <-ctx.Done():
		return Result{}, errors.Join(fmt.Errorf("waiting for the answer of %s: %w", s.opts.Name, ctx.Err()), s.Kill())
	}
	result.Duration = time.Since(begun)
	return result, nil
}

// ensureStarted starts the process unless it runs, and waits for its first poll.
func (s *Sandbox) ensureStarted(ctx context.Context, id string) (time.Duration, *Result, error) {
	if s.proc != nil {
		select {
		case <-s.proc.Done():
		default:
			return 0, nil, nil
		}
	}
	begun := time.Now()
	if err := s.start(); err != nil {
		return 0, nil, err
	}
	var r Result
	select {
	case <-s.api.ready:
		return time.Since(begun), nil, nil
	case body := <-s.api.broken:
		r = failed(id, body)
	case <-s.proc.Done():
		r = s.exited(id)
	case <-time.After(initLimit):
		r = failed(id, failure("Sandbox.Timedout", fmt.Sprintf("RequestId: %s Error: the init phase took more than %s", id, initLimit)))
	case <-ctx.Done():
		return 0, nil, errors.Join(fmt.Errorf("starting %s: %w", s.opts.Name, ctx.Err()), s.Kill())
	}
	return time.Since(begun), &r, s.Kill()
}

func (s *Sandbox) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.api != nil {
		s.api.close()
	}
	api, err := serveRuntimeAPI()
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.opts.Name, err)
	}
	proc, err := parts.Start(parts.Command{
		Name: "function " + s.opts.Name, Path: s.opts.Binary, Dir: filepath.Dir(s.opts.Binary),
		Env: s.environment(api.addr), Log: s.opts.Log, Copy: s.logs,
	})
	if err != nil {
		api.close()
		return fmt.Errorf("starting %s (build it first: make build): %w", s.opts.Name, err)
	}
	s.api, s.proc = api, proc
	return nil
}

// environment returns the variables that Lambda sets and the function's own, and none
// of the lab's: a function must not find the developer's AWS profile.
func (s *Sandbox) environment(api string) []string {
	all := map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "en_US.UTF-8", "TZ": ":UTC",
		"LAMBDA_TASK_ROOT": filepath.Dir(s.opts.Binary), "_HANDLER": "bootstrap",
		"AWS_LAMBDA_RUNTIME_API": api, "AWS_LAMBDA_FUNCTION_NAME": s.opts.Name,
		"AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.Itoa(s.opts.MemoryMB),
		"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_EXECUTION_ENV": "AWS_Lambda_provided.al2023",
		"AWS_LAMBDA_LOG_GROUP_NAME":  "/aws/lambda/" + s.opts.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME": time.Now().UTC().Format("2006/01/02") + "/[$LATEST]lab",
	}
	for name, value := range s.opts.Env {
		all[name] = value
	}
	env := make([]string, 0, len(all))
	for name, value := range all {
		env = append(env, name+"="+value)
	}
	return env
}

// Kill ends the running process at once, as a crash does. The next invocation starts
// a new one. Without a running process it does nothing.
func (s *Sandbox) Kill() error {
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if proc == nil {
		return nil
	}
	return proc.Kill()
}

// Close ends the process as Lambda ends a sandbox: SIGTERM first.
func (s *Sandbox) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	defer s.api.close()
	return s.proc.StopWithin(endGrace)
}

func (s *Sandbox) report(r Result, init time.Duration) {
	fmt.Fprintf(s.logs, "END RequestId: %s\nREPORT RequestId: %s Duration: %.2f ms Init Duration: %.2f ms %s\n",
		r.RequestID, r.RequestID, float64(r.Duration.Microseconds())/1000, float64(init.Microseconds())/1000, r.ErrorType)
}

func (s *Sandbox) exited(id string) Result {
	how := "exit status 0"
	if err := s.proc.ExitError(); err != nil {
		how = err.Error()
	}
	return failed(id, failure("Runtime.ExitError", fmt.Sprintf("RequestId: %s Error: Runtime exited with error: %s", id, how)))
}

func (s *Sandbox) timedOut(id string) Result {
	message := fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", id, s.opts.Timeout.Seconds())
	if err := s.Kill(); err != nil {
		message += " (and could not be killed: " + err.Error() + ")"
	}
	return failed(id, failure("Sandbox.Timedout", message))
}

func (r Result) withInit(init time.Duration) Result {
	r.Init = init
	return r
}

// failed returns the Result of a failure. body is the error document of the function or the lab.
func failed(id string, body []byte) Result {
	r := Result{RequestID: id, Payload: body, FunctionError: "Unhandled"}
	var document struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal(body, &document); err != nil {
		document.ErrorType, document.ErrorMessage = "Unknown", string(body)
	}
	r.ErrorType, r.ErrorMessage = document.ErrorType, document.ErrorMessage
	return r
}

func failure(kind, message string) []byte {
	body, _ := json.Marshal(map[string]string{"errorType": kind, "errorMessage": message}) // strings cannot fail
	return body
}

// requestID returns a random UUID.
func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
