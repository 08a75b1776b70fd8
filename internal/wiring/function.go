package wiring

import (
	"context"
	"fmt"
	"sync"
)

// Invoker answers an invocation, as Lambda's library asks for it.
type Invoker interface {
	Invoke(ctx context.Context, payload []byte) ([]byte, error)
}

// Function is a Lambda function. Each invocation is answered by a handler with the profiles of that moment.
type Function struct {
	base  *base
	build func(*parts) Invoker
	from  profileSource

	mu      sync.Mutex
	built   bool
	of      profileSet // of the handler
	handler Invoker
}

func newFunction(ctx context.Context, getenv func(string) string, build func(*parts) Invoker) (*Function, error) {
	b, err := newBase(ctx, getenv)
	if err != nil {
		return nil, err
	}
	from, err := b.profileSource()
	if err != nil {
		return nil, fmt.Errorf("loading the profiles: %w", err)
	}
	f := &Function{base: b, build: build, from: from}
	// Lambda has more processor time for a start than for an invocation. A failure here is that of the first invocation.
	_, _ = f.Handler(ctx)
	return f, nil
}

// Handler returns the handler with the present profiles. It fails while there are none.
func (f *Function) Handler(ctx context.Context) (Invoker, error) {
	set, err := f.from.profiles(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading the profiles: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.built || !f.of.equals(set) {
		f.handler, f.of, f.built = f.build(f.base.parts(set)), set, true
	}
	return f.handler, nil
}

// Invoke answers an invocation. Without profiles it fails, and the events go back to the queue.
func (f *Function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	h, err := f.Handler(ctx)
	if err != nil {
		return nil, err
	}
	return h.Invoke(ctx, payload)
}
