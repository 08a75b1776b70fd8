// Package doctor examines what the functions lean on: Vault and the function's own rights there, the PKI mounts, AWS
// in each account and region, the ledger's table, the profiles. It reads and asks, and changes nothing.
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
	// Health asks without logging in.
	Health(ctx context.Context) (vault.Health, error)
	Login(ctx context.Context) error
}

// Objects is what the function's token can see in Vault.
type Objects interface {
	// Read gives nil where there is nothing.
	Read(ctx context.Context, path string) (map[string]any, error)
	// List fails where nothing is mounted; an empty folder has no names.
	List(ctx context.Context, path string) ([]string, error)
	// Capabilities answers for every path or fails; "deny" alone means none.
	Capabilities(ctx context.Context, paths []string) (map[string][]string, error)
}

// AWS makes the smallest call of each kind the functions make.
type AWS interface {
	// Account is the function's own.
	Account(ctx context.Context) (string, error)
	// TryRole takes on the member role; in the function's own account there is none and nil is the answer.
	TryRole(ctx context.Context, account string) error
	TryProfiles(ctx context.Context, account string) error
	TryInstances(ctx context.Context, p facts.Place) error
}

// Table is the ledger's table. An error that wraps ledger.ErrUnsupported is of an endpoint that is not AWS.
type Table interface {
	Shape(ctx context.Context) (ledger.Shape, error)
	Recovery(ctx context.Context) (bool, error)
	Expiry(ctx context.Context) (string, error)
}

// Ledger tells whether grants are made at all.
type Ledger interface {
	// TornDown gives since when they are not; nil while they are.
	TornDown(ctx context.Context) (*time.Time, error)
}

// Options are what a Doctor needs.
type Options struct {
	Server  Server
	Objects Objects
	AWS     AWS
	Table   Table
	Ledger  Ledger
	// Places are the accounts and regions whose instances are looked after; an empty account is the function's own.
	Places   []facts.Place
	Profiles *grant.Set
	// Deployment is the one that the PKI mounts belong to.
	Deployment string
	// Rights are what the function's token must be able to do, and all that it may.
	Rights []rights.Right
	// AuthMount receives the instances' roles; the functions log in at LoginMount.
	AuthMount, LoginMount string
	// RoleNames are the functions' own roles at LoginMount, whose policies have the same names: what the token must not
	// be able to change.
	RoleNames []string
	// Timeout bounds each check; 15 seconds where it is not set.
	Timeout time.Duration
}

// Report is the doctor's answer, in the order of the checks' names below.
type Report struct {
	Mode   string  `json:"mode"` // "doctor"
	OK     bool    `json:"ok"`   // every check is
	Checks []Check `json:"checks"`
}

// Check is one thing that was looked at.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail is what was found, in one line.
	Detail string `json:"detail"`
	// Remedy is what to do, in one line; empty when the check is OK.
	Remedy string `json:"remedy"`
}

// Doctor examines. It is safe for concurrent use.
type Doctor struct{ Options }

const (
	checkTimeout = 15 * time.Second
	// sideBySide bounds how many checks ask at once: there may be hundreds, one for each account and region.
	sideBySide = 8
)

// Examine makes every check. One that fails does not stop the others; those that can tell nothing without it say so,
// and are not OK.
func (d Doctor) Examine(ctx context.Context) Report {
	steps := d.steps()
	room := make(chan struct{}, sideBySide)
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
	report := Report{Mode: "doctor", OK: true, Checks: []Check{}}
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

// steps are the checks in the order of the answer.
func (d Doctor) steps() []*step {
	own := &step{name: "aws identity", look: d.identity}
	server := &step{name: "vault", look: d.server}
	login := &step{name: "vault login", needs: []*step{server}, look: d.login}
	steps := []*step{
		server,
		{name: "vault version", needs: []*step{server}, look: d.version},
		login,
		{name: "vault rights", needs: []*step{login}, look: d.mayWhatItMust},
		{name: "vault bounds", needs: []*step{login}, look: d.mayNoMore},
	}
	steps = append(steps, d.authSteps(login, own)...)
	steps = append(steps, d.pkiSteps(login)...)
	steps = append(steps, &step{name: "names in vault", needs: []*step{login}, look: d.names}, own)
	steps = append(steps, d.placeSteps(own)...)
	steps = append(steps, d.tableSteps()...)
	steps = append(steps,
		&step{name: "profiles", look: d.loaded},
		&step{name: "profile overlap", look: d.overlap},
		&step{name: "profile rules", look: d.rules},
		&step{name: "profile networks", look: d.networks},
	)
	for _, s := range steps {
		s.done = make(chan struct{})
	}
	return steps
}
