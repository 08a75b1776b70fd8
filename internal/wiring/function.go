package wiring

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Invoker answers an invocation, as Lambda's library asks for it.
type Invoker interface {
	Invoke(ctx context.Context, payload []byte) ([]byte, error)
}

// kind is how a function is built.
type kind struct {
	// build returns the handler with the profiles of some parts.
	build func(*parts) Invoker
	// without returns what answers while no profiles can be loaded, for a reason; nil: every invocation fails with it.
	without func(b *base, why error) Invoker
	// kept is how long profiles are used before the ledger is asked for the active version again; 0: each invocation asks.
	kept time.Duration
}

// Function is a Lambda function. Each invocation is answered by a handler with the profiles of that moment.
type Function struct {
	kind
	base *base

	mu      sync.Mutex
	of      profileSet // of the handler
	handler Invoker    // nil until the first profiles were loaded
}

func newFunction(ctx context.Context, getenv func(string) string, k kind) (*Function, error) {
	b, err := newBase(ctx, getenv)
	if err != nil {
		return nil, err
	}
	if b.from, err = b.profileSource(k.kept); err != nil {
		return nil, fmt.Errorf("loading the profiles: %w", err)
	}
	f := &Function{kind: k, base: b}
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
