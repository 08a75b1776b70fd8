// Package report reads all of the ledger for the report of a fleet: the records, tombstones included, and the claims. It only reads.
//
// An answer has a bounded size, since Lambda's has. Each invocation continues behind the last item of the one before. The ledger goes on
// changing meanwhile: the answers are no snapshot, and each says when it was made.
package report

import (
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Answer is the answer to one invocation. Account, Profiles and TornDown are in the first one.
type Answer struct {
	Mode       string `json:"mode"`
	Deployment string `json:"deployment"`
	Namespace  string `json:"namespace,omitempty"` // Vault's; empty for the root one
	Account    string `json:"account,omitempty"`   // the function's own
	Region     string `json:"region"`              // the function's own
	Program    string `json:"program"`             // the function's version
	Profiles   string `json:"profiles,omitempty"`  // the digest of the active ones; empty for those that are part of the function
	RequestID  string `json:"requestId,omitempty"` // of the invocation, as its log has it
	// TornDown is when the deployment was torn down; nil while grants are made.
	TornDown *time.Time `json:"tornDown,omitempty"`
	// From and To are when the reading of this part began and ended.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`

	Instances []Instance     `json:"instances"`
	Claims    []Claim        `json:"claims"`
	Unread    []fault.Unread `json:"unread"`
	// Complete reports whether the ledger was read to its end, with this and the invocations before.
	Complete bool `json:"complete"`
	// Next is the key of the ledger behind which the next invocation continues; empty at the end.
	Next string `json:"-"`
}

// Instance is an instance as its record has it. Nothing in it is secret: no role_id, no content of an object.
type Instance struct {
	InstanceID    string       `json:"instanceId"`
	State         ledger.State `json:"state"`
	Account       string       `json:"account"`
	Region        string       `json:"region"`
	Profile       string       `json:"profile,omitempty"`
	ProfileDigest string       `json:"profileDigest,omitempty"`
	FQDN          string       `json:"fqdn,omitempty"`
	Addresses     []string     `json:"addresses,omitempty"`
	// Names are those of the present grant, which claims must confirm.
	Names    []Name      `json:"names,omitempty"`
	Former   []DatedName `json:"former,omitempty"`   // still held, until a time if it is known
	Released []DatedName `json:"released,omitempty"` // given up at a time
	Objects  int         `json:"objects"`            // in Vault, by the record
	// LoginType is the auth type of the grant.
	LoginType string `json:"loginType,omitempty"`
	// TokenMaxTTL and CertificateTTL are the longest validities, in seconds; 0 for unknown.
	TokenMaxTTL    int64 `json:"tokenMaxTtl,omitempty"`
	CertificateTTL int64 `json:"certificateTtl,omitempty"`
	Attempts       int   `json:"attempts,omitempty"`
	// Error is the error of the last run; empty if there was none.
	Error string `json:"error,omitempty"`
	// UncutUntil is when the last token that a removal could not cut expires.
	UncutUntil *time.Time `json:"uncutUntil,omitempty"`
	QuietUntil *time.Time `json:"quietUntil,omitempty"` // the second token cut is due
	Leaving    *time.Time `json:"leaving,omitempty"`    // Auto Scaling began to terminate the instance
	Revoking   int        `json:"revoking,omitempty"`   // prefixes of certificate leases still to revoke
	Ready      *Span      `json:"ready,omitempty"`
	Cut        *Span      `json:"cut,omitempty"`
	// Quarantine is the mark of an instance in quarantine, or of one that was released; nil for any other.
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	CreatedAt  time.Time   `json:"createdAt"`
	UpdatedAt  time.Time   `json:"updatedAt"`
	DeletedAt  *time.Time  `json:"deletedAt,omitempty"`
	// ExpiresAt is until when the ledger keeps a tombstone.
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
}

// Name is a name or an address below a base path or a mount.
type Name struct {
	Text  string `json:"name"`
	Under string `json:"under"`
}

// DatedName is a name with a time; nil for an unknown one.
type DatedName struct {
	Name
	At *time.Time `json:"at,omitempty"`
}

// Claim is a claim on a name: no other instance can get it.
type Claim struct {
	Name
	InstanceID string `json:"instanceId"`
}

// Span is the time from an event to its result. By is empty for a repair, which has no event to measure from.
type Span struct {
	By   ledger.Cause `json:"by,omitempty"`
	From *time.Time   `json:"from,omitempty"`
	To   *time.Time   `json:"to,omitempty"`
}

// Quarantine is the mark of an instance that was cut off while it ran. It is released, ended or in force.
type Quarantine struct {
	Since  time.Time               `json:"since"`
	By     string                  `json:"by"` // as the order says
	Reason string                  `json:"reason"`
	Source ledger.QuarantineSource `json:"source"`
	// EndedAt is when the instance was found to have ended; nil before.
	EndedAt       *time.Time `json:"endedAt,omitempty"`
	ReleasedAt    *time.Time `json:"releasedAt,omitempty"`
	ReleasedBy    string     `json:"releasedBy,omitempty"`
	ReleaseReason string     `json:"releaseReason,omitempty"`
}
