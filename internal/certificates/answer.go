package certificates

import (
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// Answer is the answer of mode certificates. docs/reconcile.md describes it.
type Answer struct {
	Mode       string    `json:"mode"`
	Deployment string    `json:"deployment"`
	Namespace  string    `json:"namespace,omitempty"`
	At         time.Time `json:"at"`
	Mounts     []Mount   `json:"mounts"`
	// Recorded is the number of certificates that the input named and that are recorded now.
	Recorded int `json:"recorded"`
	// Revoked is the number of certificates of ended instances that this run revoked.
	Revoked int `json:"revoked"`
	// NotStored is the number of those that the mount does not have: nothing revokes them before they end.
	NotStored int `json:"notStored"`
	// Ended are instances without a grant of which this run revoked certificates, or failed to.
	Ended []Ended `json:"ended"`
	// Others are certificates in the input of mounts or namespaces that are not this deployment's.
	Others int `json:"others"`
	// Waiting are ended instances with certificates that are not revoked yet because the time ran out.
	Waiting int `json:"waiting"`
	// Busy reports whether another run is under way: this one did nothing.
	Busy bool `json:"busy"`
	// Complete is false if certificates of ended instances may be left: the next run goes on.
	Complete bool           `json:"complete"`
	Unread   []fault.Unread `json:"unread"`
}

// Mount is what a run found on a PKI mount.
type Mount struct {
	Mount  string `json:"mount"`
	Stored int    `json:"stored"` // certificates
	Read   int    `json:"read"`   // in this run: those that the ledger did not know yet
	// Attributed are those of Read whose instance is certain, Doubtful those recorded for the latest of several holders.
	Attributed int `json:"attributed"`
	Doubtful   int `json:"doubtful"`
	// Unknown are those of Read that are no instance's by the ledger. They are never revoked.
	Unknown int `json:"unknown"`
	// Over are those of Read that are a CA's, have ended or are revoked.
	Over int `json:"over"`
	// Left were not read, because the time ran out.
	Left int `json:"left"`
	// Forgotten are those of Read for which an item of the ledger has no room: the next run reads them again.
	Forgotten int `json:"forgotten"`
}

// Ended is an instance without a grant.
type Ended struct {
	InstanceID string `json:"instanceId"`
	Revoked    int    `json:"revoked"`
	NotStored  int    `json:"notStored"`
	Error      string `json:"error,omitempty"`
}

// GetsOn reports whether another run at once does what this one had no time for.
func (a Answer) GetsOn() bool {
	fresh, left := 0, 0
	for _, m := range a.Mounts {
		fresh, left = fresh+m.Read-m.Forgotten, left+m.Left
	}
	return fresh > 0 && left > 0 || a.Revoked > 0 && a.Waiting > 0
}

// Join adds the answer of a later run. What was left, and what could not be read, is the later run's.
func (a Answer) Join(next Answer) Answer {
	before := map[string]Mount{}
	for _, m := range a.Mounts {
		before[m.Mount] = m
	}
	for i := range next.Mounts {
		m, b := &next.Mounts[i], before[next.Mounts[i].Mount]
		m.Read += b.Read
		m.Attributed += b.Attributed
		m.Doubtful += b.Doubtful
		m.Unknown += b.Unknown
		m.Over += b.Over
		m.Forgotten += b.Forgotten
	}
	next.Recorded += a.Recorded
	next.Revoked += a.Revoked
	next.NotStored += a.NotStored
	next.Others += a.Others
	next.Ended = slices.Concat(a.Ended, next.Ended)
	next.Ended = next.Ended[:min(len(next.Ended), maxEnded)]
	return next
}
