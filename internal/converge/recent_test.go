package converge

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestRecent_WaitsNoLongerThanItsCaller(t *testing.T) {
	var r recent[string]
	asked, answered := make(chan bool), make(chan bool)
	slow := func(ctx context.Context) (string, time.Duration, error) {
		close(asked)
		<-answered
		return "value", time.Minute, ctx.Err()
	}
	gone, leave := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := r.get(gone, "key", time.Now(), slow)
		first <- err
	}()
	<-asked
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller's time ended: want its error at once, got %v", err)
	}
	second := make(chan string)
	go func() {
		a, _ := r.get(t.Context(), "key", time.Now(), func(context.Context) (string, time.Duration, error) {
			return "another", time.Minute, nil
		})
		second <- a.value
	}()
	close(answered)
	if got := <-second; got != "value" && got != "another" {
		t.Errorf("the others want an answer although the first that asked left, got %q", got)
	}
}
