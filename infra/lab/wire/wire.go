// Package wire forwards TCP connections from another address of this machine, or with a delay.
package wire

import (
	"io"
	"net"
	"time"
)

// Options configure a wire. A wire never interprets the bytes that it forwards.
type Options struct {
	To    string        // host:port
	From  net.IP        // source address that To sees; nil for the default one
	Delay time.Duration // of each request; answers are not delayed
}

// Start opens a wire at a new loopback address. It accepts connections until the listener is closed; open ones continue.
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

// join joins a connection to the server.
func join(in net.Conn, dialer net.Dialer, o Options) {
	defer in.Close()
	out, err := dialer.Dial("tcp", o.To)
	if err != nil {
		return
	}
	defer out.Close()
	relay(in, out, o.Delay)
}

// relay copies data in both directions until one side ends, that of in after a delay.
func relay(in, out net.Conn, delay time.Duration) {
	done := make(chan struct{}, 2)
	go func() {
		_, _ = io.Copy(in, out)
		done <- struct{}{}
	}()
	go func() {
		copyDelayed(out, in, delay)
		done <- struct{}{}
	}()
	<-done
}

// copyDelayed copies the data of each read after delay. One read is one request, if the client waits for each answer before
// the next request; a request of several reads is delayed several times.
func copyDelayed(to io.Writer, from io.Reader, delay time.Duration) {
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
