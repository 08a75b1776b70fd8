package converge

import (
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

// get returns the answer to a key, as of now or earlier. ask returns the value and how long it is remembered from now on. An error is
// not remembered, and goes to all that asked at once.
func (r *recent[T]) get(key string, now time.Time, ask func() (T, time.Duration, error)) (answer[T], error) {
	now = now.Round(0) // by the wall clock, which goes on while a sandbox is frozen
	if known, ok := r.last(key, now); ok {
		return known, nil
	}
	got, err, _ := r.asked.Do(key, func() (any, error) {
		value, age, err := ask()
		a := answer[T]{value: value, asked: now, until: now.Add(age)}
		if err == nil {
			r.keep(key, a)
		}
		return a, err
	})
	a, _ := got.(answer[T])
	return a, err
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
