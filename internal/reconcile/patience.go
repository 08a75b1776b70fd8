package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// errSlow is the cause of a listing that was ended because its account took too long.
var errSlow = errors.New("the account takes too long to list")

// patience bounds the time that the listings of one account take, in all its regions together. The comparison of a page does
// not count: its time is Vault's. Without the bound, one account that answers slowly would use up the time of every run, and
// nothing would be removed in the others.
type patience struct {
	total time.Duration

	mu   sync.Mutex
	used map[string]time.Duration // by account
}

func newPatience(total time.Duration) *patience {
	return &patience{total: total, used: map[string]time.Duration{}}
}

// list runs the listing of a place with a context that ends when the account's time is used up. The listing calls each with
// the comparison of a page. It returns the error of the listing, or one that wraps errSlow.
func (p *patience) list(ctx context.Context, at facts.Place, listing func(ctx context.Context, each func(func() error) error) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slow := func() error {
		return fmt.Errorf("describing the instances of %s: %w: more than %s of this run", at.Name(), errSlow, p.total.Round(time.Second))
	}
	left := p.left(at.Account)
	if left == 0 {
		return slow()
	}
	began := time.Now()
	timer := time.AfterFunc(left, func() { cancel(errSlow) })
	defer timer.Stop()
	pause := func() (inTime bool) {
		p.spend(at.Account, time.Since(began))
		return timer.Stop() && context.Cause(ctx) == nil
	}
	err := listing(ctx, func(compare func() error) error {
		if !pause() {
			return slow()
		}
		err := compare()
		began = time.Now()
		timer.Reset(p.left(at.Account))
		return err
	})
	p.spend(at.Account, time.Since(began))
	if err != nil && errors.Is(context.Cause(ctx), errSlow) && !errors.Is(err, errSlow) {
		return slow()
	}
	return err
}

// left returns the time that an account has left.
func (p *patience) left(account string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.total-p.used[account], 0)
}

func (p *patience) spend(account string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[account] += d
}
