package certificates

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Issued is a certificate that Vault's audit log names.
type Issued struct {
	Namespace string `json:"namespace,omitempty"` // of the mount; empty for the root one
	Path      string `json:"path"`                // of the request
	Serial    string `json:"serial"`
	Expires   int64  `json:"expires"` // in Unix time, in seconds
}

// Record records certificates that Vault's audit log names, and revokes those of ended instances. The paths name the instances, so no
// certificate is read.
func (s *Sweeper) Record(ctx context.Context, issued []Issued) Answer {
	w := s.begin()
	mounts := s.Profiles.PKIMounts()
	owned := map[string][]ledger.Certificate{}
	for _, i := range issued {
		mount, role, isIssuance := grant.SplitIssuancePath(i.Path)
		id, isOurs := grant.InstanceOf(grant.KindPKIRole, role)
		serial, isSerial := parseSerial(i.Serial)
		if strings.Trim(i.Namespace, "/") != strings.Trim(s.Namespace, "/") || isIssuance && !slices.Contains(mounts, mount) {
			w.answer.Others++ // the log is one for all of Vault
			continue
		}
		if !isIssuance || !isOurs || !isSerial || i.Expires <= 0 {
			w.unread(fmt.Sprintf("%+q, serial number %+q", i.Path, i.Serial), errors.New("it is no issuance of an instance's PKI role, or lacks the serial number or the end: see docs/reconcile.md#from-vaults-audit-log"))
			continue
		}
		owned[id] = append(owned[id], ledger.Certificate{Mount: mount, Serial: serial, Until: time.Unix(i.Expires, 0).UTC()})
	}
	for _, id := range slices.Sorted(maps.Keys(owned)) {
		forgotten := 0
		err := update(ctx, s.Ledger, id, false, func(list []ledger.Certificate) []ledger.Certificate {
			list, forgotten = withinBounds(list, owned[id])
			return list
		})
		if err == nil && forgotten > 0 {
			err = fmt.Errorf("the ledger has no room for %d of them: a comparison finds them on their mount", forgotten)
		}
		if err != nil {
			w.unread("the certificates of instance "+id, err)
			continue
		}
		w.answer.Recorded += len(owned[id])
		r, err := s.Ledger.Get(ctx, id)
		w.unread("the record of instance "+id, err)
		if err == nil && r != nil && r.State == ledger.Deleted {
			w.history.ended[id], w.due[id] = true, true
		}
	}
	w.revokeDue(ctx)
	w.answer.Complete = w.answer.Complete && len(w.answer.Unread) == 0
	return w.answer
}
