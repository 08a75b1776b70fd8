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

// ErrLogin marks an error of the login that a call had to make first. The call itself was not made.
var ErrLogin = errors.New("logging in to Vault")

// Login obtains a token over a connection that carries none.
type Login func(ctx context.Context, c *Conn) (*api.SecretAuth, error)

// session holds the connection and a token across warm invocations.
type session struct {
	options Options
	state   *state // of all connections
	// lock guards the fields below. It is a channel with room for one, so that waiting ends with the context.
	lock  chan struct{}
	conn  *Conn // without a token
	token token
	// failed is the last failed login. Callers that waited for it get its error, instead of each waiting for a failure of its
	// own.
	failed struct {
		err error
		at  time.Time
	}
}

// failureTTL is how long callers get the error of a failed login instead of a login of their own.
const failureTTL = 3 * time.Second

// token is a token with its times in wall-clock time: the monotonic clock stops while a sandbox is frozen.
type token struct {
	conn      *Conn // with this token
	value     string
	renewable bool
	obtained  time.Time
	ttl       time.Duration // 0: does not expire
}

func newSession(o Options) *session {
	s := &session{options: o, lock: make(chan struct{}, 1)}
	s.state = &state{now: s.now}
	return s
}

// now returns the wall-clock time without a monotonic reading.
func (s *session) now() time.Time { return s.options.Now().Round(0) }

// validToken returns a token with time left. It connects and logs in first where needed.
func (s *session) validToken(ctx context.Context) (token, error) {
	if err := s.acquire(ctx); err != nil {
		return token{}, err
	}
	defer s.release()
	if err := s.ensureConnection(ctx); err != nil {
		return token{}, err
	}
	err := s.ensureToken(ctx)
	return s.token, err
}

// anonymous returns the connection without a token.
func (s *session) anonymous(ctx context.Context) (*Conn, error) {
	if err := s.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.release()
	err := s.ensureConnection(ctx)
	return s.conn, err
}

// acquire locks the session. It fails when ctx ends first.
func (s *session) acquire(ctx context.Context) error {
	select {
	case s.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the login to Vault: %w", ctx.Err())
	}
}

func (s *session) release() { <-s.lock }

func (s *session) ensureConnection(ctx context.Context) (err error) {
	if s.conn == nil {
		s.conn, err = s.connect(ctx)
	}
	return err
}

// connect makes the client. It ignores the environment: VAULT_SKIP_VERIFY and the like are no settings of this program.
func (s *session) connect(ctx context.Context) (*Conn, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // its documented type
	// A few connections cost Vault less for each request than one shared by all: docs/decisions/http1.md.
	transport.Protocols = &http.Protocols{}
	transport.Protocols.SetHTTP1(true)
	transport.MaxIdleConnsPerHost = 40   // a batch's concurrent requests; beyond the default of 2, each would dial again
	transport.WriteBufferSize = 16 << 10 // a policy with its headers, in one write
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
			Transport:     answerTransport{newWallClockTransport(transport)},
			CheckRedirect: checkRedirect,
		},
		Timeout:      CallTimeout,
		MaxRetries:   0,
		CloneHeaders: true, // the user agent, the one header that is in no clone's way
	})
	if err != nil {
		return nil, fmt.Errorf("making the Vault client: %w", err)
	}
	if s.options.UserAgent != "" {
		c.AddHeader("User-Agent", s.options.UserAgent)
	}
	return newConn(c, "", s.options.Namespace, s.state), nil
}

// ensureToken renews or replaces the token after two thirds of its lifetime, so that it outlasts an invocation. When both fail,
// a token with time left stays in use.
func (s *session) ensureToken(ctx context.Context) error {
	now := s.now()
	t := s.token
	age := now.Sub(t.obtained)
	if t.value != "" && (t.ttl == 0 || (age >= 0 && age < t.ttl*2/3)) {
		return nil
	}
	err := s.renewOrLogin(ctx, t, now)
	if err != nil && t.value != "" && age >= 0 && age < t.ttl-CallTimeout {
		s.options.Log.WarnContext(ctx, "the Vault token could not be replaced and stays in use until it expires", observe.KeyError, err)
		return nil
	}
	if err != nil {
		s.token = token{}
	}
	return err
}

// renewOrLogin stores a token with its full lifetime: t renewed if that works, otherwise the token of a new login.
func (s *session) renewOrLogin(caller context.Context, t token, now time.Time) error {
	ctx, cancel := withWallClockTimeout(caller, CallTimeout)
	defer cancel()
	age := now.Sub(t.obtained)
	if t.value != "" && t.renewable && age >= 0 && age < t.ttl {
		secret, err := t.conn.renew(ctx)
		if err == nil && secret != nil && secret.Auth != nil && time.Duration(secret.Auth.LeaseDuration)*time.Second > t.ttl/2 {
			return s.store(secret.Auth, now)
		}
		s.options.Log.WarnContext(ctx, "the Vault token could not be renewed for long enough and is replaced", observe.KeyError, err)
	}
	if age := now.Sub(s.failed.at); s.failed.err != nil && age >= 0 && age < failureTTL {
		return s.failed.err
	}
	auth, err := s.options.Login(ctx, s.conn)
	if err != nil {
		err = fault.New(fault.Retry, fmt.Errorf("%w at %s%s: %w", ErrLogin, s.options.Addr, inNamespace(s.options.Namespace), err))
		if !isExpired(caller) { // otherwise the caller's time ended, which says nothing about Vault
			s.failed.err, s.failed.at = err, s.now()
		}
		return err
	}
	s.failed.err = nil
	return s.store(auth, now)
}

func (s *session) store(a *api.SecretAuth, now time.Time) error {
	c, err := s.conn.withToken(a.ClientToken)
	if err != nil {
		return err
	}
	s.token = token{conn: c, value: a.ClientToken, renewable: a.Renewable, obtained: now,
		ttl: time.Duration(a.LeaseDuration) * time.Second}
	return nil
}

// dropToken drops a token that Vault refused, unless it was replaced in the meantime.
func (s *session) dropToken(refused string) {
	s.lock <- struct{}{}
	defer s.release()
	if s.token.value == refused {
		s.token = token{}
	}
}

// disconnect drops the connection and its token. The next call reads the CA bundle again and logs in.
func (s *session) disconnect() {
	s.lock <- struct{}{}
	defer s.release()
	s.conn = nil
	s.token = token{}
	s.failed.err = nil
}
