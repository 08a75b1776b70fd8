// Command vaultserver runs one real, unsealed Vault on 127.0.0.1 with its storage
// in memory, or on Raft in a folder, for the local lab and the tests. It is a module of its own
// because the Vault server pins hundreds of dependencies and has another licence
// (BUSL-1.1) than its client.
//
// When Vault answers, it writes its address as one line of JSON; see [ready].
// The server ends on SIGTERM, on SIGINT, and when its standard input is closed,
// so that it does not outlive the process that started it.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/vault"
)

// ready is the server's address and credentials, written when it can be used.
type ready struct {
	Address   string `json:"address"`
	CAPEM     string `json:"ca_pem"`
	RootToken string `json:"root_token"`
}

type options struct {
	listen, audit, ready, logLevel string
	cert, key, ca                  string
	storage, path                  string
	ignoreStdin                    bool
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "address to listen on")
	flag.StringVar(&o.audit, "audit", "", "file that receives the audit log in JSON (none when empty)")
	flag.StringVar(&o.ready, "ready", "", "file that receives the ready line (standard output when empty)")
	flag.StringVar(&o.logLevel, "log-level", "warn", "trace, debug, info, warn or error")
	flag.StringVar(&o.cert, "cert", "", "server certificate in PEM (generated when empty; needs -key and -ca)")
	flag.StringVar(&o.key, "key", "", "key of the server certificate in PEM")
	flag.StringVar(&o.ca, "ca", "", "CA bundle that clients of the given certificate should trust")
	flag.StringVar(&o.storage, "storage", inMemory, "inmem, or raft: one node that waits for the disk at each write")
	flag.StringVar(&o.path, "path", "", "folder of the Raft storage")
	flag.BoolVar(&o.ignoreStdin, "ignore-stdin", false, "keep running when standard input is closed")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if !o.ignoreStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "vaultserver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	log := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.LevelFromString(o.logLevel), Output: os.Stderr})

	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", o.listen, err)
	}
	defer ln.Close()

	cert, caPEM, err := serverCertificate(o)
	if err != nil {
		return fmt.Errorf("preparing the server certificate: %w", err)
	}

	core, err := newCore(log, "https://"+ln.Addr().String(), o)
	if err != nil {
		return fmt.Errorf("making the Vault core: %w", err)
	}
	token, err := initialise(ctx, core)
	if err != nil {
		return fmt.Errorf("initialising Vault: %w", err)
	}

	srv := &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: &configutil.Listener{Address: ln.Addr().String()},
		}),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()

	self := ready{Address: "https://" + ln.Addr().String(), CAPEM: caPEM, RootToken: token}
	if o.audit != "" {
		if err := enableAudit(ctx, self, o.audit); err != nil {
			return fmt.Errorf("enabling the audit log %s: %w", o.audit, err)
		}
	}
	if err := announce(o.ready, self); err != nil {
		return fmt.Errorf("writing the ready line: %w", err)
	}

	select {
	case err := <-served:
		return fmt.Errorf("serving %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := srv.Shutdown(stopping); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stopping the listener: %w", err)
	}
	return nil
}

// announce writes the ready line. A file gets its name only when it is complete,
// because its reader polls for it.
func announce(file string, r ready) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if file == "" {
		_, err = os.Stdout.Write(line)
		return err
	}
	if err := os.WriteFile(file+".part", line, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".part", file)
}
