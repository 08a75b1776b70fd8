// Package wire passes TCP connections on: from another address of this machine, or as over a longer way.
package wire

import (
	"io"
	"net"
	"time"
)

// Options say what a wire does. Nothing of it reads what it carries.
type Options struct {
	To    string        // host:port
	From  net.IP        // who To sees; nil for whoever it is
	Delay time.Duration // how much later To gets a request; its answer is not delayed
}

// Start opens a wire at an address of its own, until the listener is closed. Connections that stand then go on.
func Start(o Options) (net.Listener, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	if o.From != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: o.From}
	}
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return // closed
			}
			go join(in, dialer, o)
		}
	}()
	return ln, nil
}

// join passes what either side says on to the other, until one of them ends.
func join(in net.Conn, dialer net.Dialer, o Options) {
	defer in.Close()
	out, err := dialer.Dial("tcp", o.To)
	if err != nil {
		return
	}
	defer out.Close()
	done := make(chan struct{}, 2)
	go func() {
		_, _ = io.Copy(in, out)
		done <- struct{}{}
	}()
	go func() {
		late(out, in, o.Delay)
		done <- struct{}{}
	}()
	<-done
}

// late passes on piece by piece, each later than it came by delay. A piece is all that one read gives, which is one request
// where the next is not sent before this one's answer; a second piece of a long one waits twice.
func late(to io.Writer, from io.Reader, delay time.Duration) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			time.Sleep(delay)
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
