package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Function runs a limited number of sandboxes of one function side by side. As
// Lambda does, it makes them on demand and reuses the most recently used one first.
type Function struct {
	opts  Options
	logs  *ring
	slots chan struct{}

	mu        sync.Mutex
	idle      []*Sandbox
	all       []*Sandbox
	closed    bool
	coldStart int
}

// NewFunction returns a function that runs at most concurrency invocations at a time.
func NewFunction(o Options, concurrency int) *Function {
	return &Function{opts: o, logs: &ring{}, slots: make(chan struct{}, max(1, concurrency))}
}

// Name returns the function's name.
func (f *Function) Name() string { return f.opts.Name }

// Invoke runs the event in a free sandbox. If all are busy, it waits for one.
func (f *Function) Invoke(ctx context.Context, payload []byte) (Result, error) {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return Result{}, fmt.Errorf("waiting for a free sandbox of %s: %w", f.opts.Name, ctx.Err())
	}
	s, err := f.idleOrNew()
	if err != nil {
		return Result{}, err
	}
	result, err := s.Invoke(ctx, payload)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, s)
	if result.Init > 0 {
		f.coldStart++
	}
	return result, err
}

func (f *Function) idleOrNew() (*Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fmt.Errorf("invoking %s: the function is closed", f.opts.Name)
	}
	if n := len(f.idle); n > 0 {
		s := f.idle[n-1]
		f.idle = f.idle[:n-1]
		return s, nil
	}
	s := newSandbox(f.opts, f.logs)
	f.all = append(f.all, s)
	return s, nil
}

// ColdStarts returns the number of processes started so far.
func (f *Function) ColdStarts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.coldStart
}

// Logs returns the latest output of all sandboxes.
func (f *Function) Logs() string { return f.logs.String() }

// Kill ends every running process of the function at once, also during an
// invocation. Later invocations start new ones.
func (f *Function) Kill() error { return f.each((*Sandbox).Kill) }

// Close ends all sandboxes. The function cannot be invoked afterwards.
func (f *Function) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	return f.each((*Sandbox).Close)
}

func (f *Function) each(do func(*Sandbox) error) error {
	f.mu.Lock()
	all := append([]*Sandbox(nil), f.all...)
	f.mu.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { errs[i] = do(s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
