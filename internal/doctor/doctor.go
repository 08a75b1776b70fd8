// Package doctor makes the checks of vault-ec2 doctor, which invokes the reconcile function, whose handler
// calls Examine. It checks all that the functions need: Vault and the function's rights there, the auth and PKI mounts, AWS in
// each account and region, the ledger's table, and the profiles. It only reads.
package doctor

import (
	"context"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// Server is a Vault server, before and at the login.
type Server interface {
	// Health returns the server's state, without a login.
	Health(ctx context.Context) (vault.Health, error)
	// CheckNamespace returns vault.ErrNamespacesIgnored, vault.ErrNoNamespace, or the error of a call. It makes no login.
	CheckNamespace(ctx context.Context) error
	Login(ctx context.Context) error
}

// Objects reads Vault with the function's token.
type Objects interface {
	// Read returns nil where nothing exists.
	Read(ctx context.Context, path string) (map[string]any, error)
	// List returns nil for an empty folder, and fails where nothing is mounted.
	List(ctx context.Context, path string) ([]string, error)
	// Issuers returns the issuers of a PKI mount, which every token may list.
	Issuers(ctx context.Context, mount string) ([]vault.Issuer, error)
	// Capabilities returns the capabilities at every path or fails; "deny" alone means none.
	Capabilities(ctx context.Context, paths []string) (map[string][]string, error)
}

// AWS makes the smallest call of each kind that the functions make.
type AWS interface {
	// Account returns the function's own account.
	Account(ctx context.Context) (string, error)
	// TryRole assumes the member role. In the function's own account it assumes none and returns nil.
	TryRole(ctx context.Context, account string) error
	TryProfiles(ctx context.Context, account string) error
	TryInstances(ctx context.Context, p facts.Place) error
}

// Table reads the settings of the ledger's table. An error that wraps ledger.ErrUnsupported says that the endpoint is not AWS and
// lacks the call.
type Table interface {
	Shape(ctx context.Context) (ledger.Shape, error)
	Recovery(ctx context.Context) (bool, error)
	Expiry(ctx context.Context) (string, error)
}

// Ledger reads whether the deployment was torn down.
type Ledger interface {
	// TornDown returns the time of the teardown, nil if there was none.
	TornDown(ctx context.Context) (*time.Time, error)
}

// Options configure a Doctor.
type Options struct {
	Server  Server
	Objects Objects
	AWS     AWS
	Table   Table
	Ledger  Ledger
	// Region is the function's own.
	Region string
	// Services are the services that no other check calls.
	Services []Service
	// Places are the deployment's accounts and regions; an empty account is the function's own.
	Places   []facts.Place
	Profiles *grant.Set
	// ProfilesRefused is why the function uses Profiles and not the wanted ones; nil if it uses those.
	ProfilesRefused error
	// Deployment is the deployment's ID.
	Deployment string
	// Rights are the rights that the function's token must have, and the only ones it may have.
	Rights []rights.Right
	// Version is the function's.
	Version string
	// RevokesStored reports whether stored certificates are revoked.
	RevokesStored bool
	// Namespace is Vault's namespace; empty for the root one.
	Namespace string
	// VaultHost is the host of Vault's address; empty if it is not checked.
	VaultHost string
	// Resolve returns the canonical name of a host; nil: it is not looked up.
	Resolve func(ctx context.Context, host string) (string, error)
	// AuthMount is the auth mount of the instances' roles.
	AuthMount string
	// LoginMount is the auth mount at which the functions log in.
	LoginMount string
	// RoleNames are the functions' own roles at LoginMount. Their policies have the same names. The token must not be able to
	// change these roles and policies.
	RoleNames []string
	// Timeout bounds each check; 0: 15 seconds.
	Timeout time.Duration
}

// Report is the doctor's answer.
type Report struct {
	Mode    string  `json:"mode"`    // "doctor"
	OK      bool    `json:"ok"`      // all checks are OK
	Checks  []Check `json:"checks"`  // in a fixed order
	Version string  `json:"version"` // of the function
}

// Check is the result of one check.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail is the finding, in one line.
	Detail string `json:"detail"`
	// Remedy says what to do, in one line; empty if the check is OK.
	Remedy string `json:"remedy"`
}

// Doctor examines a deployment. It is safe for concurrent use.
type Doctor struct{ Options }

const (
	checkTimeout = 15 * time.Second
	// maxConcurrent bounds the concurrent checks: there may be hundreds, since each account and region has its own.
	maxConcurrent = 8
)

// Examine makes every check. A failed check does not stop the others; those that need it are not OK and name it.
func (d Doctor) Examine(ctx context.Context) Report {
	steps := d.steps()
	room := make(chan struct{}, maxConcurrent)
	timeout := d.Timeout
	if timeout == 0 {
		timeout = checkTimeout
	}
	var all sync.WaitGroup
	for _, s := range steps {
		all.Go(func() {
			defer close(s.done)
			s.found = s.run(ctx, room, timeout)
		})
	}
	all.Wait()
	report := Report{Mode: "doctor", Version: d.Version, OK: true, Checks: []Check{}}
	for _, s := range steps {
		c := Check{Name: s.name, OK: s.found.ok, Detail: line(s.found.detail)}
		if !c.OK {
			report.OK = false
			c.Remedy = line(s.found.remedy)
		}
		report.Checks = append(report.Checks, c)
	}
	return report
}

// steps returns the checks in the order of the report.
func (d Doctor) steps() []*step {
	own := &step{name: "aws identity", check: d.identity}
	server := &step{name: "vault", check: d.server}
	namespace := &step{name: "vault namespace", needs: []*step{server}, check: d.namespace}
	login := &step{name: "vault login", needs: []*step{namespace}, check: d.login}
	steps := []*step{
		server,
		{name: "vault version", needs: []*step{server}, check: d.version},
		namespace,
		login,
		{name: "vault rights", needs: []*step{login}, check: d.hasRights},
		{name: "vault bounds", needs: []*step{login}, check: d.hasOnlyRights},
	}
	steps = append(steps, d.authSteps(login, own)...)
	steps = append(steps, d.pkiSteps(login)...)
	steps = append(steps, d.sshSteps(login)...)
	steps = append(steps, &step{name: "names in vault", needs: []*step{login}, check: d.foreignNames}, own)
	steps = append(steps, d.placeSteps(own)...)
	steps = append(steps, d.serviceSteps()...)
	steps = append(steps, d.tableSteps()...)
	steps = append(steps,
		&step{name: "profiles", check: d.loaded},
		&step{name: "profile overlap", check: d.overlap},
		&step{name: "profile rules", check: d.rules},
		&step{name: "profile networks", check: d.networks},
	)
	for _, s := range steps {
		s.done = make(chan struct{})
	}
	return steps
}
