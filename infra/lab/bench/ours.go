package bench

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
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
	ec2        *ec2
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
	c := &comparison{n: n, vault: &countingVault{Vault: client, lists: map[string]int{}}, ledger: &timedLedger{}, ec2: &ec2{n: n}}
	own := ledger.New(c.ledger.counting(ledger.NewAPI(awsclient.DynamoDB(p.DynamoURL, region))), table, time.Now)
	c.ledger.Ledger = own
	c.reconciler = &reconcile.Reconciler{Options: reconcile.Options{
		Profiles: profiles, Realm: realm(), Vault: c.vault, Ledger: c.ledger, Teardowns: own, Instances: c.ec2,
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
	return c.checkReadOnce()
}

// checkReadOnce returns an error if an item of the ledger, a list of Vault or a page of EC2 was read more than once, or not at all.
func (c *comparison) checkReadOnce() error {
	if items := c.n * itemsEach; int(c.ledger.items.Load()) != items {
		return fmt.Errorf("the comparison scanned %d items of the ledger, want each of %d once", c.ledger.items.Load(), items)
	}
	if pages := (c.n + pageSize - 1) / pageSize; c.ec2.pages != pages {
		return fmt.Errorf("the comparison read %d pages of EC2, want each of %d once", c.ec2.pages, pages)
	}
	if len(c.vault.lists) != listsEach {
		return fmt.Errorf("the comparison read the lists %v, want %d", c.vault.lists, listsEach)
	}
	for folder, times := range c.vault.lists {
		if times != 1 {
			return fmt.Errorf("the comparison listed %s %d times, want once", folder, times)
		}
	}
	return nil
}

const (
	// itemsEach is the number of the ledger's items of an instance: its record and its claims.
	itemsEach = 5
	// listsEach is the number of lists: policies, auth roles, accesslist, PKI roles and aliases.
	listsEach = 5
)

// countingVault counts the objects read, and the lists.
type countingVault struct {
	reconcile.Vault
	reads atomic.Int64
	mu    sync.Mutex
	lists map[string]int
}

func (v *countingVault) count(folder string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lists[folder]++
}

func (v *countingVault) List(ctx context.Context, path string) ([]string, error) {
	v.count(path)
	return v.Vault.List(ctx, path)
}

func (v *countingVault) Aliases(ctx context.Context, authMount string) ([]vault.Alias, error) {
	v.count("the aliases of " + authMount)
	return v.Vault.Aliases(ctx, authMount)
}

func (v *countingVault) Read(ctx context.Context, path string) (map[string]any, error) {
	v.reads.Add(1)
	return v.Vault.Read(ctx, path)
}

// timedLedger times the scan, whose speed is that of DynamoDB Local and not of DynamoDB, and counts its items.
type timedLedger struct {
	reconcile.Ledger
	scan  time.Duration
	items atomic.Int64
}

// counting returns an API that counts the items that DynamoDB reads for scans.
func (l *timedLedger) counting(api ledger.API) ledger.API {
	scan := api.Scan
	api.Scan = func(ctx context.Context, in *dynamodb.ScanInput, options ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error) {
		out, err := scan(ctx, in, options...)
		if err == nil {
			l.items.Add(int64(out.ScannedCount))
		}
		return out, err
	}
	return api
}

func (l *timedLedger) Scan(ctx context.Context, v ledger.Visitor) error {
	start := time.Now()
	defer func() { l.scan = time.Since(start) }()
	return l.Ledger.Scan(ctx, v)
}
