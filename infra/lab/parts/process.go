package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopGrace bounds the time that a child may take to end after SIGTERM.
const stopGrace = 4 * time.Second

// Command describes one child process.
type Command struct {
	Name string    // its name in messages
	Path string    // the program
	Args []string  // without the program's own name
	Dir  string    // working folder
	Env  []string  // the whole environment; nil inherits the lab's
	Log  string    // file that receives stdout and stderr
	Copy io.Writer // receives stdout and stderr too; may be nil
}

// Process is one running child in its own process group, so that a Ctrl-C in the
// terminal reaches only the lab and the lab ends its parts in order.
type Process struct {
	name, log string
	pid       int
	stdin     io.Closer
	done      chan struct{}
	err       error // valid once done is closed
}

// Start starts the command. The child's standard input stays open while the lab
// runs; programs that watch it end with the lab.
func Start(c Command) (*Process, error) {
	if err := os.MkdirAll(filepath.Dir(c.Log), 0o755); err != nil {
		return nil, fmt.Errorf("making the log folder of %s: %w", c.Name, err)
	}
	out, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", c.Name, err)
	}
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.Dir, c.Env, out, out
	if c.Copy != nil {
		both := io.MultiWriter(out, c.Copy)
		cmd.Stdout, cmd.Stderr = both, both
		// A grandchild with the output open must not block Wait.
		cmd.WaitDelay = 2 * time.Second
	}
	cmd.SysProcAttr = ownGroup()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("preparing the input of %s: %w", c.Name, err)
	}

	p := &Process{name: c.Name, log: c.Log, stdin: stdin, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The death signal depends on the thread that forked: keep that thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s (%s): %w", c.Name, c.Path, err)
	}
	return p, nil
}

// PID returns the child's process ID.
func (p *Process) PID() int { return p.pid }

// LogFile returns the file of the child's output.
func (p *Process) LogFile() string { return p.log }

// ExitError returns the error that the child ended with, or nil for success. Call it after Done is closed.
func (p *Process) ExitError() error { return p.err }

// Done returns a channel that is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop sends the child's group SIGTERM, and SIGKILL after a few seconds. Stopping
// an ended child is not an error.
func (p *Process) Stop() error { return p.StopWithin(stopGrace) }

// StopWithin is Stop with another time between SIGTERM and SIGKILL.
func (p *Process) StopWithin(grace time.Duration) error {
	_ = p.stdin.Close()
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := signalGroup(p.pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("sending SIGTERM to %s (pid %d): %w", p.name, p.pid, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	return p.Kill()
}

// Kill ends the child's group at once and waits until the child has ended.
func (p *Process) Kill() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := signalGroup(p.pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing %s (pid %d): %w", p.name, p.pid, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopGrace):
		return fmt.Errorf("killing %s (pid %d): it still runs after %s", p.name, p.pid, stopGrace)
	}
}

// errEnded marks a child that ended by itself, as opposed to a slow one.
var errEnded = errors.New("it ended before it was ready")

// WaitReady calls probe until it succeeds, the child ends, or ctx is done. The error
// contains the last lines of the child's log.
func (p *Process) WaitReady(ctx context.Context, probe func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := probe(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("waiting for %s: %w (%w); its last lines, from %s:\n%s", p.name, errEnded, p.err, p.log, tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last answer: %w); its last lines, from %s:\n%s", p.name, ctx.Err(), err, p.log, tail(p.log))
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// signalGroup signals a child's process group. A group that has ended is not an error.
func signalGroup(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(-pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// run runs a command. The error contains the end of its output.
func run(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := bytes.TrimSpace(out.Bytes())
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, text[max(0, len(text)-1500):])
	}
	return nil
}
