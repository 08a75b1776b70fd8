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
	// without returns what answers while no profiles can be loaded, for a reason; nil: every invocation fails with it.
	without func(b *base, why error) Invoker

	mu      sync.Mutex
	of      profileSet // of the handler
	handler Invoker    // nil until the first profiles were loaded
}

func newFunction(ctx context.Context, getenv func(string) string, build func(*parts) Invoker, without func(*base, error) Invoker) (*Function, error) {
	b, err := newBase(ctx, getenv)
	if err != nil {
		return nil, err
	}
	if b.from, err = b.profileSource(); err != nil {
		return nil, fmt.Errorf("loading the profiles: %w", err)
	}
	f := &Function{base: b, build: build, without: without}
	// Lambda has more processor time for a start than for an invocation. A failure here is that of the first invocation.
	_, _ = f.Handler(ctx)
	return f, nil
}

// Handler returns the handler with the present profiles. It fails while there are none.
func (f *Function) Handler(ctx context.Context) (Invoker, error) {
	set, err := f.base.from.profiles(ctx)
	if err != nil {
		err = fmt.Errorf("loading the profiles: %w", err)
		if f.without != nil {
			return f.without(f.base, err), nil
		}
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.handler == nil || !f.of.equals(set) {
		f.handler, f.of = f.build(f.base.parts(set)), set
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
