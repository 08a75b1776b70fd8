package converge

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// writeTime is how long after its intent a run can still write an object: checkLease starts no later call.
const writeTime = ledger.LeaseTime - leaseMargin + vault.CallTimeout

// MayLag reports whether a read may have been answered from before the last writes and deletes of an instance's objects: a grant
// was made, or its removal ended, a moment ago. It is false for a nil record, and for one of an earlier version.
func MayLag(r *ledger.Record, now time.Time) bool {
	within := func(t *time.Time, limit time.Duration) bool {
		return t != nil && now.Sub(*t).Abs() < limit // a record may say anything
	}
	return r != nil && (within(r.MadeAt, writeTime+vault.MaxLag) || within(r.DeletedAt, vault.MaxLag))
}

// again calls judge, and again while it refuses or finds a conflict that a lagging read may explain. It returns the last error.
func (c *Converger) again(ctx context.Context, r *ledger.Record, judge func() error) error {
	var err error
	c.Looks.Until(ctx, func() bool {
		err = judge()
		return err == nil || fault.KindOf(err) == fault.Retry || !MayLag(r, c.Now())
	})
	return err
}

// begin returns a run of a batch on an instance whose record is old; nil if there is none.
func (c *Converger) begin(batch *Batch, old *ledger.Record) *work {
	return &work{Converger: c, batch: batch, owner: c.NewOwner(), old: old, mayLag: MayLag(old, c.Now())}
}

// look calls look, and again while a lagging read may explain that it returns false. It reports whether look returned true.
func (w *work) look(ctx context.Context, look func() bool) bool {
	if !w.mayLag {
		return look()
	}
	return w.Looks.Until(ctx, look)
}

// mustWrite reports whether an object of a grant is written: got, as read, differs; or got may be from before an earlier run wrote
// other values or deleted the object, which the record shows. An object whose drift is left is not.
func (w *work) mustWrite(g *grant.Grant, o grant.Object, got map[string]any) bool {
	if w.leaves(w.old, g, o, got) {
		return false
	}
	isRecorded := w.old != nil && w.old.State == ledger.Active && w.old.SHA256(o.Path) == o.SHA256()
	return differs(o, got) || (w.mayLag && !isRecorded)
}

// readBack reads an object of which fields were just written, and compares them. It returns the object as read.
func (w *work) readBack(ctx context.Context, o grant.Object, fields map[string]any) (got map[string]any, err error) {
	sent := grant.Object{Kind: o.Kind, Path: o.Path, Fields: fields}
	agrees := w.Looks.Until(ctx, func() bool {
		got, err = w.Vault.Read(ctx, o.Path)
		return err != nil || (got != nil && len(sent.Differences(got)) == 0)
	})
	switch {
	case err != nil:
		return nil, err
	case got == nil:
		return nil, fault.Retryf("%s was written and is absent when read back", o.Path)
	}
	if differ := o.Differences(got); !agrees && len(differ) > 0 {
		return nil, w.differsError(o.Path, differ)
	}
	return got, nil
}

// differsError returns the error of an object that reads back with other values. It is a refusal only when an earlier run ended
// with the same, so long ago that no lag explains it.
func (w *work) differsError(path string, fields []string) error {
	err := fmt.Errorf("%s was written but reads back with other values in %v: this version of Vault does not take them, or another client writes the same object", path, fields)
	if w.old != nil && !w.mayLag && strings.Contains(w.old.LastError, err.Error()) {
		return fault.New(fault.Refuse, err)
	}
	return fault.New(fault.Retry, err)
}

// isOursToDelete reads a recorded policy that is to be deleted. It reports whether to delete it, and fails with a conflict if it
// has another marker or none. A policy that was not seen is deleted too if it may have been made a moment ago: the record would
// not name it any more, and deleting what is absent does no harm.
func (w *work) isOursToDelete(ctx context.Context, path string) (bool, error) {
	var current map[string]any
	var err error
	isOurs := w.look(ctx, func() bool {
		current, err = w.Vault.Read(ctx, path)
		return err != nil || w.instance(w.record.InstanceID).OwnerOf(current) == ownership.Ours
	})
	switch {
	case err != nil:
		return false, err
	case !isOurs && current != nil:
		return false, fault.Conflictf("%s does not bear the marker of this deployment (%s) any more and is left alone", path, w.Realm.Deployment)
	}
	return isOurs || w.mayLag, nil
}

// readLogin reads an auth role that is to be deleted; nil if it does not exist. A role that may have been made a moment ago must
// be seen if only its role_id leads to the tokens of its logins, and it is not recorded or could be another by now.
func (w *work) readLogin(ctx context.Context, l *login, path string) (role map[string]any, err error) {
	recorded := w.record.RoleID(path)
	isSeen := w.look(ctx, func() bool {
		role, err = w.Vault.Read(ctx, path)
		roleID, _ := role["role_id"].(string)
		return err != nil || (roleID != "" && (recorded == "" || recorded == roleID))
	})
	// An earlier removal records the role_id before it deletes the role.
	isDeleted := recorded != "" && w.old != nil && w.old.State == ledger.Deprovisioning
	if err == nil && w.mayLag && !isSeen && !isDeleted && !l.hasInstanceAlias() {
		err = fault.Retryf("instance %s: it was granted a moment ago, and a read of %s does not show that yet: it is read again later", w.record.InstanceID, path)
	}
	return role, err
}
