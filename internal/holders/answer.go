// Package holders finds the instances that hold names, addresses and objects in Vault, and those that held them before. It only
// reads.
//
// The name of an object in Vault has the instance's ID in it, so that one record answers for it. A claim answers for a name or an
// address that one instance alone may hold. Former holders, and names that instances share, are found by reading the whole ledger, page
// by page: no item of the table leads from a name to a tombstone (docs/decisions/who.md).
package holders

import (
	"cmp"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Answer is the answer to one invocation.
type Answer struct {
	Mode       string    `json:"mode"`
	Deployment string    `json:"deployment"`
	Namespace  string    `json:"namespace,omitempty"`
	At         time.Time `json:"at"`
	// Asked are the names as they were understood.
	Asked []Asked `json:"asked"`
	// Holders are the holders of the names, in the order of Asked, the present ones first.
	Holders []Holder `json:"holders"`
	// Instances are the instances of Holders.
	Instances []Instance     `json:"instances"`
	Unread    []fault.Unread `json:"unread"`
	// Scanned counts the records and claims that were read page by page.
	Scanned int `json:"scanned"`
	// Complete reports whether the whole ledger was read, with this and the invocations before.
	Complete bool `json:"complete"`
	// Next is the key of the ledger behind which the next invocation continues; empty at the end.
	Next string `json:"-"`
}

// Asked is a name as it was understood.
type Asked struct {
	Name string `json:"name"` // as it was asked
	// As is what it is taken for.
	As Kind `json:"as"`
	// Text is the form in which the ledger has it; the instance's ID for an object.
	Text string `json:"text"`
	// Error is why it is none of these.
	Error string `json:"error,omitempty"`
}

// isInLedger reports whether the ledger, and not Vault, has the name.
func (a Asked) isInLedger() bool { return a.As == OfName || a.As == OfAddress || a.As == OfURI }

// Kind is a kind of name.
type Kind string

// The kinds.
const (
	OfName     Kind = "name"    // a DNS name or another name of certificates
	OfAddress  Kind = "address" // an IP address
	OfURI      Kind = "uri"     // a SPIFFE ID
	OfObject   Kind = "object"  // an object in Vault, or the ID of an instance
	Unreadable Kind = "unknown" // none of these
)

// Basis is what shows that an instance holds or held a name.
type Basis string

// The bases, the one that says most first.
const (
	ByClaim     Basis = "claim"       // the ledger has a claim: no other instance can get the name
	ByFormer    Basis = "former name" // the same, and the instance's grant no longer has the name
	ByRelease   Basis = "released"    // the instance gave the name up
	ByRecord    Basis = "record"      // its record has the name, without a claim: instances share it
	ByTombstone Basis = "tombstone"   // the record of its removed grant has the name
	ByID        Basis = "id"          // the instance's ID is in the name
)

// Holder is an instance that holds or held a name.
type Holder struct {
	Name       string `json:"name"` // as it was asked
	InstanceID string `json:"instanceId"`
	// Under is the mount or the base path of the name, or the path of the object.
	Under string `json:"under"`
	// Now reports whether the instance holds it now.
	Now   bool  `json:"now"`
	Basis Basis `json:"basis"`
	// Until is when the instance gave it up; for a former name that it still holds, when the last certificate with it ends; nil if that is
	// open or unknown.
	Until *time.Time `json:"until"`
}

// Instance is an instance of the answer.
type Instance struct {
	InstanceID string `json:"instanceId"`
	Account    string `json:"account"`
	Region     string `json:"region"`
	Profile    string `json:"profile"`
	FQDN       string `json:"fqdn"`
	// Addresses are those of its grant.
	Addresses []string `json:"addresses"`
	// State is that of its record; empty if the ledger has none.
	State ledger.State `json:"state"`
	// EC2 is its state in EC2; empty if EC2 was not asked or does not show it.
	EC2       string     `json:"ec2"`
	CreatedAt *time.Time `json:"createdAt"` // of its record
	DeletedAt *time.Time `json:"deletedAt"` // when its grant was removed
	// Quarantine is the mark of an instance that is, or was, in quarantine; nil for any other.
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	Objects    []Object    `json:"objects"`
	// AuditFilter is a filter for jq that selects the instance's requests, and those about it, in Vault's audit log.
	AuditFilter string `json:"auditFilter"`
}

// Quarantine is the mark of an instance that was cut off while it ran.
type Quarantine struct {
	Since      time.Time  `json:"since"`
	By         string     `json:"by"`
	Reason     string     `json:"reason"`
	ReleasedAt *time.Time `json:"releasedAt"` // nil while it is in quarantine
}

// Object is an object of an instance in Vault, as its record has it.
type Object struct {
	Kind grant.Kind `json:"object"`
	Path string     `json:"path"`
	// Retained reports whether it stays in Vault although the grant that made it is removed, or does not have it any more.
	Retained bool `json:"retained,omitempty"`
	// InVault reports whether Vault has it; nil if Vault was not asked about it.
	InVault *bool `json:"inVault,omitempty"`
}

// Join returns the answer of several invocations. b continues a.
func (a *Answer) Join(b Answer) Answer {
	b.Asked, b.Scanned = a.Asked, a.Scanned+b.Scanned
	b.Holders = withoutDoubles(slices.Concat(a.Holders, b.Holders))
	for _, i := range a.Instances {
		if !slices.ContainsFunc(b.Instances, func(o Instance) bool { return o.InstanceID == i.InstanceID }) {
			b.Instances = append(b.Instances, i)
		}
	}
	b.Unread = slices.Concat(a.Unread, b.Unread)
	b.sort()
	return b
}

// withoutDoubles drops each row for which another row of the same name and instance says as much or more: where the name is held, or
// until when.
func withoutDoubles(all []Holder) []Holder {
	var out []Holder
	for i, h := range all {
		says := func(o Holder) bool { // as much as h
			return o.Name == h.Name && o.InstanceID == h.InstanceID && o.Now == h.Now && (o.Under == h.Under || h.Under == "")
		}
		saysMore := func(o Holder) bool {
			return says(o) && ((h.Under == "" && o.Under != "") || (h.Basis == ByClaim && o.Basis == ByFormer))
		}
		saysAsMuch := func(o Holder) bool { return says(o) && (o.Basis != ByClaim || h.Basis != ByFormer) }
		if !slices.ContainsFunc(all[:i], saysAsMuch) && !slices.ContainsFunc(all, saysMore) {
			out = append(out, h)
		}
	}
	return out
}

// sort orders the holders by the question, the present ones first and then the latest, and the instances by ID.
func (a *Answer) sort() {
	order := map[string]int{}
	for i, asked := range slices.Backward(a.Asked) {
		order[asked.Name] = i
	}
	rank := func(h Holder) int {
		if h.Now {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(a.Holders, func(x, y Holder) int {
		return cmp.Or(cmp.Compare(order[x.Name], order[y.Name]), cmp.Compare(rank(x), rank(y)), timeOf(y).Compare(timeOf(x)),
			cmp.Compare(x.InstanceID, y.InstanceID), cmp.Compare(x.Under, y.Under))
	})
	slices.SortFunc(a.Instances, func(x, y Instance) int { return cmp.Compare(x.InstanceID, y.InstanceID) })
}

// timeOf returns until when an instance held a name; zero if that is unknown.
func timeOf(h Holder) time.Time {
	if h.Until == nil {
		return time.Time{}
	}
	return *h.Until
}
