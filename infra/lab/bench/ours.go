package bench

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// comparison is one pass of the reconciler, wired as the function wires it.
type comparison struct {
	reconciler *reconcile.Reconciler
	vault      *countingVault
	ledger     *timedLedger
	n          int
}

func newComparison(p place, n int) (*comparison, error) {
	profiles, err := loadProfiles()
	if err != nil {
		return nil, err
	}
	client := vault.New(vault.Options{
		Addr: p.VaultAddr,
		CA:   func(context.Context) ([]byte, error) { return []byte(p.VaultCA), nil },
		// A login takes a few milliseconds and serves many runs, so the measurement leaves it out.
		Login: func(context.Context, *vault.Conn) (*api.SecretAuth, error) {
			return &api.SecretAuth{ClientToken: p.Token}, nil
		},
	})
	c := &comparison{n: n, vault: &countingVault{Vault: client}}
	own := ledger.New(ledger.NewAPI(awsclient.DynamoDB(p.DynamoURL, region)), table, time.Now)
	c.ledger = &timedLedger{Ledger: own}
	c.reconciler = &reconcile.Reconciler{Options: reconcile.Options{
		Profiles: profiles, Realm: realm(), Vault: c.vault, Ledger: c.ledger, Teardowns: own, Instances: ec2{n: n},
		Places: []facts.Place{{Region: region}}, DetectOnly: true, Now: time.Now,
	}}
	return c, nil
}

// run compares the fleet once. It fails if the pass did not see the whole fleet or found drift: the pass then measured
// something else.
func (c *comparison) run(ctx context.Context, namesOnly bool) error {
	a := c.reconciler.Run(ctx, reconcile.Input{Mode: reconcile.Detect, NamesOnly: namesOnly}, nil, reconcile.Observer{Log: slog.New(slog.DiscardHandler)})
	if len(a.Drift) > 0 {
		d := a.Drift[0]
		return fmt.Errorf("the comparison found drift where there is none: %+v, the first %s %s %s %v %s", a.Summary, d.Path, d.Reason, d.Action, d.Fields, d.Error)
	}
	whole := reconcile.Scanned{Instances: c.n, Records: c.n, Policies: c.n, AuthRoles: c.n, PKIRoles: c.n}
	if a.Blocked || a.Truncated || a.Scanned != whole || a.Summary != (reconcile.Summary{}) {
		return fmt.Errorf("the comparison did not see the whole fleet of %d: %+v", c.n, a)
	}
	reads := c.n * objectsEach
	if namesOnly {
		reads = 0
	}
	if got := int(c.vault.reads.Load()); got != reads {
		return fmt.Errorf("the comparison read %d objects, want %d", got, reads)
	}
	return nil
}

// countingVault counts the objects read.
type countingVault struct {
	reconcile.Vault
	reads atomic.Int64
}

func (v *countingVault) Read(ctx context.Context, path string) (map[string]any, error) {
	v.reads.Add(1)
	return v.Vault.Read(ctx, path)
}

// timedLedger times the scan, whose speed is that of DynamoDB Local and not of DynamoDB.
type timedLedger struct {
	reconcile.Ledger
	scan time.Duration
}

func (l *timedLedger) Scan(ctx context.Context, v ledger.Visitor) error {
	start := time.Now()
	defer func() { l.scan = time.Since(start) }()
	return l.Ledger.Scan(ctx, v)
}
