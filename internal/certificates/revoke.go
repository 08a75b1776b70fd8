package certificates

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const (
	// atOnce is the number of calls that are made side by side.
	atOnce = 8
	// perWrite is the number of certificates that are revoked before that is written to the ledger.
	perWrite = 40
	// tries is how often an item is read again that another run changed.
	tries = 4
)

// Store has the instances and the owners of certificates.
type Store interface {
	Get(ctx context.Context, instanceID string) (*ledger.Record, error)
	Certificates(ctx context.Context, owner string) (ledger.Certificates, error)
	// PutCertificates fails with ledger.ErrChanged if the item has changed since it was read.
	PutCertificates(ctx context.Context, owner string, old ledger.Certificates, list []ledger.Certificate, keeps bool) error
}

// RevokingVault revokes.
type RevokingVault interface {
	RevokeCertificate(ctx context.Context, mount, serial string) (stored bool, err error)
}

// Revoker revokes the certificates that the ledger has of an instance.
type Revoker struct {
	Vault RevokingVault
	Store Store
	Now   func() time.Time
	// Limit is the time after which no more certificates are begun; 0 for none.
	Limit time.Duration
	// Log receives a line for an instance with certificates that nothing can revoke; nil: none.
	Log *slog.Logger
}

// ErrLeft says that the limit was reached, and that certificates are left for a later call.
var ErrLeft = errors.New("the instance has more certificates than are revoked at once; the rest follows")

// Revoked is what a revocation did.
type Revoked struct {
	Certificates int
	// NotStored are certificates that the mount does not have: nothing can revoke those.
	NotStored int
}

// Revoke revokes the certificates of an instance without a grant that are not revoked yet and have not ended. After an error the rest is left
// to a later call, which finds what was done in the ledger.
func (r Revoker) Revoke(ctx context.Context, instanceID string) error {
	done, err := r.revoke(ctx, instanceID)
	if done.NotStored > 0 && r.Log != nil {
		r.Log.WarnContext(ctx, "certificates that their PKI mount does not store are valid until they end", observe.KeyInstance, instanceID, observe.KeyObjects, done.NotStored)
	}
	return err
}

// revoke is Revoke with what was done.
func (r Revoker) revoke(ctx context.Context, instanceID string) (done Revoked, err error) {
	item, err := r.Store.Certificates(ctx, instanceID)
	if err != nil {
		return done, err
	}
	var due []ledger.Certificate
	for _, c := range item.List {
		if !c.Revoked && c.Until.After(r.Now()) {
			due = append(due, c)
		}
	}
	begun := r.Now()
	for part := range slices.Chunk(due, perWrite) {
		if r.Limit > 0 && r.Now().Sub(begun) > r.Limit {
			return done, ErrLeft
		}
		// The item was read before the record, and is read once. So it has no certificate of a grant that the instance got since.
		record, err := r.Store.Get(ctx, instanceID)
		if err != nil || record == nil || record.State != ledger.Deleted {
			return done, err
		}
		revoked, n, failed := r.revokeAll(ctx, part)
		done.Certificates += n.Certificates
		done.NotStored += n.NotStored
		if len(revoked) > 0 {
			err = update(ctx, r.Store, instanceID, false, func(list []ledger.Certificate) []ledger.Certificate { return merge(list, revoked) })
		}
		if err = errors.Join(failed, err); err != nil {
			return done, err
		}
	}
	return done, nil
}

// revokeAll revokes certificates side by side and returns those of which nothing is left to revoke.
func (r Revoker) revokeAll(ctx context.Context, part []ledger.Certificate) (revoked []ledger.Certificate, done Revoked, err error) {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, c := range part {
		group.Go(func() error {
			stored, err := r.Vault.RevokeCertificate(ctx, c.Mount, Serial(c.Serial))
			if err != nil && !errors.Is(err, vault.ErrNotMounted) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			c.Revoked = true
			revoked = append(revoked, c)
			if stored {
				done.Certificates++
			} else {
				done.NotStored++
			}
			return nil
		})
	}
	return revoked, done, group.Wait()
}

// update changes the certificates of an owner, again from the start where another run changed them meanwhile.
func update(ctx context.Context, store Store, owner string, keeps bool, change func([]ledger.Certificate) []ledger.Certificate) error {
	for try := 1; ; try++ {
		item, err := store.Certificates(ctx, owner)
		if err != nil {
			return err
		}
		err = store.PutCertificates(ctx, owner, item, change(item.List), keeps)
		if !errors.Is(err, ledger.ErrChanged) || try == tries {
			return err
		}
	}
}

// Serial returns the bytes of a serial number in Vault's form: hex, with colons.
func Serial(raw string) string { return strings.ReplaceAll(fmt.Sprintf("% x", raw), " ", ":") }

// maxSerial is the largest number of bytes of a serial number. https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.2
const maxSerial = 20

// parseSerial returns the bytes of a serial number in hex, with colons or hyphens between them or without. ok is false for any other
// text.
func parseSerial(text string) (raw string, ok bool) {
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "").Replace(text))
	return string(b), err == nil && len(b) > 0 && len(b) <= maxSerial
}

// merge returns a list with the certificates of another. What is revoked in one is revoked in both.
func merge(list, more []ledger.Certificate) []ledger.Certificate {
	type key struct{ mount, serial string }
	at := make(map[key]int, len(list))
	for i, c := range list {
		at[key{c.Mount, c.Serial}] = i
	}
	list = slices.Clone(list)
	for _, c := range more {
		i, known := at[key{c.Mount, c.Serial}]
		if !known {
			at[key{c.Mount, c.Serial}] = len(list)
			list = append(list, c)
			continue
		}
		list[i].Revoked = list[i].Revoked || c.Revoked
	}
	return list
}
