package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// stranger is the role of instances that match no profile.
const stranger = "bob"

// churn launches and terminates instances.
type churn struct {
	world *lab.World
	rng   *rand.Rand // used only by the goroutine that launches
	plan  Options

	mu   sync.Mutex
	done counts
	errs []error
}

// counts are the numbers of each event of the instances.
type counts struct {
	launched, terminated, stopped, tagged int
	announced, lost, doubled              int
	logins, loginsRefused                 int
}

// life is the course of one instance, drawn before its launch so that a run can be repeated.
type life struct {
	role                                 string
	lost, doubled, endLost, logsIn, stay bool
	stops, tags                          bool
	age                                  time.Duration
}

func (c *churn) draw(left time.Duration) life {
	chance := func(p float64) bool { return c.rng.Float64() < p }
	roles := []string{"alice-worker", "alice-worker", "alice-worker", "alice-etcd", "alice-master", stranger}
	age := time.Duration(c.rng.Float64() * float64(c.plan.For) / 4)
	return life{
		role: roles[c.rng.IntN(len(roles))], lost: chance(0.05), doubled: chance(0.15), endLost: chance(0.05), logsIn: chance(0.7),
		stops: chance(0.1), tags: chance(0.2), age: max(6*time.Second, age), stay: age > left,
	}
}

// run launches the instances one after the other until the time is over, and waits for those that terminate.
func (c *churn) run(ctx context.Context) {
	var group sync.WaitGroup
	begin := time.Now()
	every := c.plan.For / time.Duration(c.plan.Instances)
	for n := range c.plan.Instances {
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(begin.Add(time.Duration(n) * every))):
			l := c.draw(c.plan.For - time.Since(begin))
			group.Go(func() { c.live(ctx, l) })
		}
	}
	group.Wait()
}

func (c *churn) count(f func(*counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.done)
}

// fail records an error of the lab, unless the run is over.
func (c *churn) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
}

// live runs one instance's life. A failure here is the lab's fault, since the fleet's calls do not go through a tap.
func (c *churn) live(ctx context.Context, l life) {
	launched, err := c.world.Fleet.Launch(ctx, fleet.Spec{Role: l.role})
	if err != nil {
		c.fail(ctx, fmt.Errorf("launching: %w", err))
		return
	}
	i := launched[0]
	c.count(func(n *counts) { n.launched++ })
	c.announce(ctx, i, "running", l.lost, l.doubled)
	c.wait(ctx, l.age/3)
	var session *fleet.Session
	if l.logsIn {
		session = c.login(ctx, i)
	}
	if l.tags {
		if err := c.world.Fleet.SetTags(ctx, i, map[string]string{"soak": i.ID}); err != nil {
			c.fail(ctx, err)
		}
		c.count(func(n *counts) { n.tagged++ })
	}
	if l.stops {
		c.stop(ctx, i)
	}
	c.wait(ctx, l.age*2/3)
	if l.stay || ctx.Err() != nil {
		return
	}
	if err := c.world.Fleet.Terminate(ctx, i); err != nil {
		c.fail(ctx, err)
		return
	}
	c.count(func(n *counts) { n.terminated++ })
	c.announce(ctx, i, "terminated", l.endLost, l.doubled)
	if session != nil {
		c.mu.Lock()
		c.plan.sessions[i.ID] = session
		c.mu.Unlock()
	}
}

// login logs in as Vault Agent does, again after a refusal: not granted yet, of no profile, or no leader. It returns nil if no
// attempt succeeded.
func (c *churn) login(ctx context.Context, i fleet.Instance) *fleet.Session {
	const attempts, pause = 5, 2 * time.Second
	for range attempts {
		session, err := c.world.Fleet.Login(ctx, c.world.AuthMount, i, "")
		c.count(func(n *counts) {
			if n.logins++; err != nil {
				n.loginsRefused++
			}
		})
		if err == nil {
			return session
		}
		c.wait(ctx, pause)
	}
	return nil
}

// stop stops an instance and starts it again, even if the time ends in between: at the end an instance runs or has terminated.
func (c *churn) stop(ctx context.Context, i fleet.Instance) {
	if ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := c.world.Fleet.Stop(ctx, i); err != nil {
		c.fail(ctx, err)
		return
	}
	c.count(func(n *counts) { n.stopped++ })
	c.announce(ctx, i, "stopped", false, false)
	c.wait(ctx, time.Second)
	if err := c.world.Fleet.Start(ctx, i); err != nil {
		c.fail(ctx, err)
		return
	}
	c.announce(ctx, i, "running", false, false)
}

// announce sends the state's event, twice, or not at all.
func (c *churn) announce(ctx context.Context, i fleet.Instance, state string, lost, doubled bool) {
	times := 1
	switch {
	case lost:
		times = 0
		c.count(func(n *counts) { n.lost++ })
	case doubled:
		times = 2
		c.count(func(n *counts) { n.doubled++ })
	}
	for range times {
		if err := c.world.Fleet.Announce(ctx, i, state); err != nil {
			c.fail(ctx, err)
		}
		c.count(func(n *counts) { n.announced++ })
	}
}

func (c *churn) wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
