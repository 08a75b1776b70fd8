package converge

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// recent remembers answers by key for a while. One question answers all that ask at once. The zero value is empty; it is safe for
// concurrent use.
type recent[T any] struct {
	asked singleflight.Group
	mu    sync.Mutex
	known map[string]answer[T]
}

// answer is a value as of the time at which it was asked for.
type answer[T any] struct {
	value T
	asked time.Time
	until time.Time // when it is forgotten
}

// get returns the answer to a key, as of now or earlier. ask returns the value and how long it is remembered from now on. Its context
// does not end with the caller's, since others may wait for the answer: ask has a deadline of its own. An error is not remembered, and
// goes to all that asked at once. A caller whose time ends gets the error of its context.
func (r *recent[T]) get(ctx context.Context, key string, now time.Time, ask func(context.Context) (T, time.Duration, error)) (answer[T], error) {
	now = now.Round(0) // by the wall clock, which goes on while a sandbox is frozen
	if known, ok := r.last(key, now); ok {
		return known, nil
	}
	done := r.asked.DoChan(key, func() (any, error) {
		if known, ok := r.last(key, now); ok { // the answer came since the look above
			return known, nil
		}
		value, age, err := ask(context.WithoutCancel(ctx))
		a := answer[T]{value: value, asked: now, until: now.Add(age)}
		if err == nil {
			r.keep(key, a)
		}
		return a, err
	})
	select {
	case got := <-done:
		a, _ := got.Val.(answer[T])
		return a, got.Err
	case <-ctx.Done():
		return answer[T]{}, ctx.Err()
	}
}

// has reports whether the answer to a key is remembered.
func (r *recent[T]) has(key string, now time.Time) bool {
	_, ok := r.last(key, now.Round(0))
	return ok
}

func (r *recent[T]) last(key string, now time.Time) (answer[T], bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.known[key]
	return a, ok && now.Before(a.until)
}

func (r *recent[T]) keep(key string, a answer[T]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[string]answer[T]{}
	}
	r.known[key] = a
}
