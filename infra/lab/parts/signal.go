package parts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopLimit bounds the time that a busy machine may take to stop a child's threads.
const stopLimit = 5 * time.Second

// Suspend stops the child's group and returns when no thread of the child runs any more: the kernel stops one thread
// first, and on a busy machine the others run on for a while. An ended child is not an error.
func (p *Process) Suspend() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(stopLimit); !stopped(p.pid); time.Sleep(time.Millisecond) {
		select {
		case <-p.done:
			return nil
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("stopping %s (pid %d): it still runs after %s", p.name, p.pid, stopLimit)
		}
	}
	return nil
}

// Continue resumes a suspended child.
func (p *Process) Continue() error { return p.signal(syscall.SIGCONT) }

func (p *Process) signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := signalGroup(p.pid, sig); err != nil {
		return fmt.Errorf("sending %s to %s (pid %d): %w", sig, p.name, p.pid, err)
	}
	return nil
}

// stopped reports whether every thread of a process is stopped. Without /proc it waits a moment and returns true.
func stopped(pid int) bool {
	if _, err := os.Stat("/proc/self/task"); errors.Is(err, fs.ErrNotExist) {
		time.Sleep(100 * time.Millisecond)
		return true
	}
	threads, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "stat"))
	if err != nil {
		return false
	}
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread ended meanwhile
		}
		// "pid (name) T …"; the name may contain any character
		state := string(text[strings.LastIndexByte(string(text), ')')+1:])
		if err != nil || (!strings.HasPrefix(state, " T") && !strings.HasPrefix(state, " t")) {
			return false
		}
	}
	return len(threads) > 0
}
