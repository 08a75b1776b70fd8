package lab

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// LineOptions configure a line.
type LineOptions struct {
	Name        string            // of its log and its secret; unique among lines
	Functions   []string          // logical IDs
	Env         map[string]string // overrides the deployed variables
	Concurrency int               // processes of one function at a time (1)
	Timeout     time.Duration     // of one invocation (as deployed)
}

// Line is a separate access to the world: its taps and functions have no other users, so that a fault, a count or a kill
// affects this line only and lines can work side by side.
type Line struct {
	Taps        Taps
	Functions   map[string]*sandbox.Function // by logical ID
	CAPEM       string                       // the CAs that the line's functions trust Vault by
	CASecretARN string                       // the secret with CAPEM

	closers []func() error
}

// Line makes a line. The caller must close it before the world.
func (w *World) Line(ctx context.Context, o LineOptions) (*Line, error) {
	l := &Line{Functions: map[string]*sandbox.Function{}}
	err := l.startTaps(w)
	for _, id := range o.Functions {
		if err == nil {
			err = l.addFunction(ctx, w, o, id)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making the line %s: %w", o.Name, err), l.Close())
	}
	return l, nil
}

func (l *Line) startTaps(w *World) error {
	serving, ca, err := tap.LoopbackTLS()
	if err != nil {
		return err
	}
	l.CAPEM = w.VaultCAPEM + ca
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.VaultCAPEM))
	for _, t := range []struct {
		at *(*tap.Tap)
		o  tap.Options
	}{
		{&l.Taps.AWS, tap.Options{Upstream: w.MotoURL}},
		{&l.Taps.Dynamo, tap.Options{Upstream: aws.ToString(w.Dynamo.Options().BaseEndpoint)}},
		{&l.Taps.Vault, tap.Options{Upstream: w.VaultAddr, RootCAs: roots, TLS: serving, Service: "vault", Balanced: w.Cluster != nil}},
	} {
		if *t.at, err = tap.Start(t.o); err != nil {
			return err
		}
		l.closers = append(l.closers, (*t.at).Close)
	}
	return nil
}

func (l *Line) addFunction(ctx context.Context, w *World, o LineOptions, id string) error {
	if l.CASecretARN == "" {
		out, err := secretsmanager.NewFromConfig(w.AWS).CreateSecret(ctx, &secretsmanager.CreateSecretInput{
			Name: aws.String("vault-ca-" + o.Name), SecretString: &l.CAPEM,
		})
		if err != nil {
			return fmt.Errorf("storing the CA of its tap: %w", err)
		}
		l.CASecretARN = aws.ToString(out.ARN)
	}
	env, err := w.FunctionEnv(ctx, id)
	if err != nil {
		return err
	}
	maps.Copy(env, map[string]string{
		"AWS_ENDPOINT_URL": l.Taps.AWS.URL, "AWS_ENDPOINT_URL_DYNAMODB": l.Taps.Dynamo.URL,
		"VAULT_ADDR": l.Taps.Vault.URL, "VAULT_CA_SECRET_ARN": l.CASecretARN,
	})
	maps.Copy(env, o.Env)
	f := w.Stack.Functions[id]
	function := sandbox.NewFunction(sandbox.Options{
		Name: f.Name, ARN: f.ARN, Binary: filepath.Join(f.CodeDir, "bootstrap"), Env: env, MemoryMB: f.MemoryMB,
		Timeout: cmp.Or(o.Timeout, time.Duration(f.TimeoutSeconds)*time.Second), Log: w.workspace.Log(id + "-" + o.Name),
	}, max(1, o.Concurrency))
	l.Functions[id] = function
	l.closers = append(l.closers, function.Close)
	return nil
}

// SetFault sets the same hook on all three taps.
func (l *Line) SetFault(hook func(tap.Call) *tap.Fault) {
	for _, t := range l.taps() {
		t.SetFault(hook)
	}
}

// Reset clears the recorded calls of all three taps.
func (l *Line) Reset() {
	for _, t := range l.taps() {
		t.Reset()
	}
}

// Quiet waits until no call is in flight in the taps: after that, no request of a killed process can take effect.
func (l *Line) Quiet(ctx context.Context) error {
	for _, t := range l.taps() {
		for inFlight(t.Calls()) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("waiting for the calls of a line to end: %w", ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

func inFlight(calls []tap.Call) bool {
	for _, c := range calls {
		if c.Duration == 0 {
			return true
		}
	}
	return false
}

func (l *Line) taps() []*tap.Tap { return []*tap.Tap{l.Taps.AWS, l.Taps.Dynamo, l.Taps.Vault} }

// Close ends the line's functions and taps.
func (l *Line) Close() error {
	var errs []error
	for i := len(l.closers) - 1; i >= 0; i-- {
		errs = append(errs, l.closers[i]())
	}
	l.closers = nil
	return errors.Join(errs...)
}
