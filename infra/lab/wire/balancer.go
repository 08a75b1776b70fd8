package wire

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Backend is a server behind a balancer.
type Backend struct {
	Address string // host:port
	// Usable reports whether the server may receive connections.
	Usable func(context.Context) bool
}

// Balancer forwards each connection to one of the usable backends, in turn, from the client's own address. It closes the
// connections of a backend that has become unusable, as a network load balancer does.
type Balancer struct {
	Address string // host:port, for clients

	listener net.Listener
	end      context.CancelFunc
	checks   sync.WaitGroup
	backends []*checked
	next     atomic.Uint64
}

// checked is a backend with its state.
type checked struct {
	Backend
	mu     sync.Mutex
	usable bool
	conns  map[net.Conn]bool
}

// Balance starts a balancer at a new loopback address that checks its backends at an interval.
func Balance(backends []Backend, every time.Duration) (*Balancer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	b := &Balancer{Address: ln.Addr().String(), listener: ln, end: end}
	for _, backend := range backends {
		c := &checked{Backend: backend, conns: map[net.Conn]bool{}}
		b.backends = append(b.backends, c)
		b.checks.Go(func() { c.watch(ctx, every) })
	}
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return // closed
			}
			go b.forward(in)
		}
	}()
	return b, nil
}

// Close ends the checks and all connections.
func (b *Balancer) Close() error {
	err := b.listener.Close()
	b.end()
	b.checks.Wait()
	for _, c := range b.backends {
		c.set(false)
	}
	return err
}

// forward joins a connection to the next usable backend, and closes it if there is none.
func (b *Balancer) forward(in net.Conn) {
	defer in.Close()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	if from, ok := in.RemoteAddr().(*net.TCPAddr); ok {
		dialer.LocalAddr = &net.TCPAddr{IP: from.IP}
	}
	for range b.backends {
		c := b.backends[int(b.next.Add(1)%uint64(len(b.backends)))]
		if !c.isUsable() {
			continue
		}
		out, err := dialer.Dial("tcp", c.Address)
		if err != nil {
			continue
		}
		if c.add(out) {
			relay(in, out, 0)
			c.remove(out)
		}
		_ = out.Close()
		return
	}
}

func (c *checked) watch(ctx context.Context, every time.Duration) {
	for {
		attempt, cancel := context.WithTimeout(ctx, every)
		usable := c.Usable(attempt)
		cancel()
		c.set(usable && ctx.Err() == nil)
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

func (c *checked) isUsable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usable
}

func (c *checked) set(usable bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.usable = usable
	if !usable {
		for conn := range c.conns {
			_ = conn.Close()
		}
	}
}

// add registers a connection; it reports false if the backend has become unusable.
func (c *checked) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.usable {
		c.conns[conn] = true
	}
	return c.usable
}

func (c *checked) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// WaitUsable waits until as many backends are usable.
func (b *Balancer) WaitUsable(ctx context.Context, n int) error {
	for {
		usable := 0
		for _, c := range b.backends {
			if c.isUsable() {
				usable++
			}
		}
		if usable >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("waiting for usable backends"), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
