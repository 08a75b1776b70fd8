package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// ErrLogin marks an error of the login that any call may have had to make first: the call itself was not made.
var ErrLogin = errors.New("logging in to Vault")

// Login obtains a token over a client that has none. The answer's Auth is what the session lives on.
type Login func(ctx context.Context, c *Conn) (*api.SecretAuth, error)

// session holds the connection and a token across warm invocations.
type session struct {
	options Options
	// lock has room for one: whoever holds it may log in. A channel, so that waiting ends with the context.
	lock      chan struct{}
	connected *Conn // has no token
	token     token
	// failed is the login that failed last. Whoever waited for it gets the same answer, instead of each waiting for a
	// failure of its own.
	failed struct {
		err error
		at  time.Time
	}
}

// failureKept is how long a failed login answers for others.
const failureKept = 3 * time.Second

// token is a token with its times in wall-clock time: the monotonic clock stands still while a sandbox is frozen.
type token struct {
	conn      *Conn // carries it
	value     string
	renewable bool
	obtained  time.Time
	ttl       time.Duration // 0: does not expire
}

func newSession(o Options) *session {
	return &session{options: o, lock: make(chan struct{}, 1)}
}

// now is wall-clock time without a monotonic reading.
func (s *session) now() time.Time { return s.options.Now().Round(0) }

// good gives a token with time left.
func (s *session) good(ctx context.Context) (token, error) {
	if err := s.enter(ctx); err != nil {
		return token{}, err
	}
	defer s.leave()
	if err := s.ensureConnection(ctx); err != nil {
		return token{}, err
	}
	err := s.ensureToken(ctx)
	return s.token, err
}

// anonymous is the connection without a token.
func (s *session) anonymous(ctx context.Context) (*Conn, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	err := s.ensureConnection(ctx)
	return s.connected, err
}

// enter takes the lock, or fails when the time is over.
func (s *session) enter(ctx context.Context) error {
	select {
	case s.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the login to Vault: %w", ctx.Err())
	}
}

func (s *session) leave() { <-s.lock }

func (s *session) ensureConnection(ctx context.Context) (err error) {
	if s.connected == nil {
		s.connected, err = s.connect(ctx)
	}
	return err
}

// connect makes the client. Nothing of it comes from the environment: VAULT_SKIP_VERIFY and its like are nobody's
// setting here.
func (s *session) connect(ctx context.Context) (*Conn, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // documented to be one
	// A few connections cost Vault less for each request than one that all share: docs/decisions/http1.md.
	transport.Protocols = &http.Protocols{}
	transport.Protocols.SetHTTP1(true)
	transport.MaxIdleConnsPerHost = 32 // as many as a batch has at work; the default of 2 would dial anew
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.options.CA != nil {
		bundle, err := s.options.CA(ctx)
		if err != nil {
			return nil, fmt.Errorf("reading the CA bundle for Vault: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(bundle) {
			return nil, errors.New("reading the CA bundle for Vault: the secret of VAULT_CA_SECRET_ARN holds no certificate in PEM")
		}
	}
	c, err := api.NewClient(&api.Config{
		Address: s.options.Addr,
		HttpClient: &http.Client{
			Transport: newBounded(transport),
			// The api client follows a standby's redirect itself, once.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Timeout:    callTimeout,
		MaxRetries: 0,
	})
	if err != nil {
		return nil, fmt.Errorf("making the Vault client: %w", err)
	}
	return NewConn(c, "", s.options.Namespace), nil
}

// ensureToken renews or replaces the token once two thirds of its time are gone, so that it outlasts an invocation. When
// neither works, a token that has time left goes on being used.
func (s *session) ensureToken(ctx context.Context) error {
	now := s.now()
	t := s.token
	age := now.Sub(t.obtained)
	if t.value != "" && (t.ttl == 0 || age >= 0 && age < t.ttl*2/3) {
		return nil
	}
	err := s.replace(ctx, t, now)
	if err != nil && t.value != "" && age >= 0 && age < t.ttl-callTimeout {
		s.options.Log.WarnContext(ctx, "the Vault token could not be replaced and is used to its end", observe.KeyError, err)
		return nil
	}
	if err != nil {
		s.token = token{}
	}
	return err
}

func (s *session) replace(caller context.Context, t token, now time.Time) error {
	ctx, cancel := within(caller, callTimeout)
	defer cancel()
	age := now.Sub(t.obtained)
	if t.value != "" && t.renewable && age >= 0 && age < t.ttl {
		secret, err := t.conn.renew(ctx)
		if err == nil && secret != nil && secret.Auth != nil && time.Duration(secret.Auth.LeaseDuration)*time.Second > t.ttl/2 {
			return s.keep(secret.Auth, now)
		}
		s.options.Log.WarnContext(ctx, "the Vault token could not be renewed for long and is replaced", observe.KeyError, err)
	}
	if age := now.Sub(s.failed.at); s.failed.err != nil && age >= 0 && age < failureKept {
		return s.failed.err
	}
	auth, err := s.options.Login(ctx, s.connected)
	if err != nil {
		err = fault.New(fault.Retry, fmt.Errorf("%w at %s: %w", ErrLogin, s.options.Addr, err))
		if !spent(caller) { // else it was the caller's time that ended, and says nothing of Vault
			s.failed.err, s.failed.at = err, s.now()
		}
		return err
	}
	s.failed.err = nil
	return s.keep(auth, now)
}

func (s *session) keep(a *api.SecretAuth, now time.Time) error {
	c, err := s.connected.as(a.ClientToken)
	if err != nil {
		return err
	}
	s.token = token{conn: c, value: a.ClientToken, renewable: a.Renewable, obtained: now,
		ttl: time.Duration(a.LeaseDuration) * time.Second}
	return nil
}

// forget drops a token that Vault refused, unless it was replaced meanwhile.
func (s *session) forget(refused string) {
	s.lock <- struct{}{}
	defer s.leave()
	if s.token.value == refused {
		s.token = token{}
	}
}

// disconnect drops the connection and its CA bundle; the next call reads the bundle anew.
func (s *session) disconnect() {
	s.lock <- struct{}{}
	defer s.leave()
	s.connected = nil
	s.token = token{}
	s.failed.err = nil
}
