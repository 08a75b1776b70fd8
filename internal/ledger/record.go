// Package ledger keeps in a DynamoDB table what was made for which instance, and who may hold which name. Every
// path is written here before it is made in Vault, so that whatever a crash leaves behind is known by name.
package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// State is where the record of an instance stands.
type State string

// The states of a record.
const (
	Provisioning   State = "provisioning"
	Active         State = "active"
	Deprovisioning State = "deprovisioning"
	Deleted        State = "deleted"
	Refused        State = "refused"
)

// Object is one object in Vault as the record keeps it: by the path it was made at, which is the path it will be
// deleted at.
type Object struct {
	Kind   grant.Kind `dynamodbav:"kind"`
	Path   string     `dynamodbav:"path"`
	SHA256 string     `dynamodbav:"sha256"`
	// RoleID is the auth role's role_id, the identity alias of its logins; empty for other kinds and until it is read.
	RoleID string `dynamodbav:"role_id,omitempty"`
}

// Record is all the ledger holds of one instance.
type Record struct {
	InstanceID    string `dynamodbav:"instance_id"`
	State         State  `dynamodbav:"state"`
	Account       string `dynamodbav:"account"`
	Region        string `dynamodbav:"region"`
	Profile       string `dynamodbav:"profile"`
	ProfileDigest string `dynamodbav:"profile_digest"`
	BasePath      string `dynamodbav:"base_path"`
	FQDN          string `dynamodbav:"fqdn"`
	// Former are names held before and not given up yet: something in Vault may still bear them.
	Former    []Name   `dynamodbav:"former,omitempty"`
	Addresses []string `dynamodbav:"addresses"`
	Objects   []Object `dynamodbav:"objects"`
	// ExtraPolicies tells that the auth role gives policies that outlive the instance's own objects.
	ExtraPolicies bool `dynamodbav:"extra_policies,omitempty"`
	// QuietUntil is when every login that was under way while the auth role went must have ended; nil when nothing has
	// to be waited for.
	QuietUntil *time.Time `dynamodbav:"quiet_until,omitempty"`
	// LeavingSince is when Auto Scaling was seen to terminate the instance and its removal began, while EC2 still showed it
	// as running; nil when that was not so.
	LeavingSince *time.Time `dynamodbav:"leaving_since,omitempty"`
	// FormerRoleIDs are role_ids of auth roles that are no more: tokens from then hang on them. A tombstone keeps them,
	// since a login that was under way during the removal can end after it.
	FormerRoleIDs []string   `dynamodbav:"former_role_ids,omitempty"`
	EventTime     time.Time  `dynamodbav:"event_time"`
	CreatedAt     time.Time  `dynamodbav:"created_at"`
	UpdatedAt     time.Time  `dynamodbav:"updated_at"`
	DeletedAt     *time.Time `dynamodbav:"deleted_at,omitempty"` // nil unless deleted
	Attempts      int        `dynamodbav:"attempts"`
	LastError     string     `dynamodbav:"last_error"`

	// Set by the ledger at every write.
	Version        int64  `dynamodbav:"version"`
	LeaseOwner     string `dynamodbav:"lease_owner,omitempty"`
	LeaseExpiresAt int64  `dynamodbav:"lease_expires_at,omitempty"` // Unix time, ms
	// WriteID is new at every write. A conditional write whose answer was lost and that the SDK sends again fails on
	// its own success: by this value it knows itself.
	WriteID   string `dynamodbav:"write_id"`
	ExpiresAt int64  `dynamodbav:"expires_at,omitempty"` // Unix time, s: DynamoDB's TTL
}

// Claim names the one instance that may hold a name below a base path.
type Claim struct {
	InstanceID string `dynamodbav:"instance_id"`
	Account    string `dynamodbav:"account"`
	Region     string `dynamodbav:"region"`
}

// Name is a claim's name.
type Name struct {
	BasePath string `dynamodbav:"base_path"`
	FQDN     string `dynamodbav:"fqdn"`
}

// Name is the name the record's instance holds or is about to hold; zero when it has none.
func (r Record) Name() Name { return Name{BasePath: r.BasePath, FQDN: r.FQDN} }

// Names are all names the instance may hold: its own and the former ones.
func (r Record) Names() []Name {
	var names []Name
	for _, n := range append([]Name{r.Name()}, r.Former...) {
		if n.FQDN != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// Leaves tells whether the instance is on its way out by Auto Scaling's word and is granted nothing more, though it may
// run for hours yet. Only a start after that, of an instance that was stopped, is a new life.
func (r *Record) Leaves(launched time.Time) bool {
	return r != nil && r.LeavingSince != nil && !launched.After(*r.LeavingSince)
}

// Has tells whether the record names this path.
func (r Record) Has(path string) bool {
	for _, o := range r.Objects {
		if o.Path == path {
			return true
		}
	}
	return false
}

// SHA256 is the digest of what was written to a path; empty when the record does not name it.
func (r Record) SHA256(path string) string {
	for _, o := range r.Objects {
		if o.Path == path {
			return o.SHA256
		}
	}
	return ""
}

// Holds tells whether the record begins with exactly the objects of a grant, in its order.
func (r Record) Holds(g *grant.Grant) bool {
	all := g.All()
	if len(r.Objects) < len(all) || r.FQDN != g.FQDN || r.BasePath != g.Profile.BasePath {
		return false
	}
	for i, o := range all {
		if r.Objects[i].Path != o.Path || r.Objects[i].SHA256 != o.SHA256() {
			return false
		}
	}
	return true
}

// RoleID is the role_id of the auth role recorded at a path; empty when it is not known.
func (r Record) RoleID(path string) string {
	for _, o := range r.Objects {
		if o.Path == path {
			return o.RoleID
		}
	}
	return ""
}

// RoleIDs are all role_ids that auth roles of the instance are known to have, or to have had.
func (r Record) RoleIDs() []string {
	ids := slices.Clone(r.FormerRoleIDs)
	for _, o := range r.Objects {
		if o.RoleID != "" && !slices.Contains(ids, o.RoleID) {
			ids = append(ids, o.RoleID)
		}
	}
	return ids
}

// SetRoleID notes the role_id of the auth role at a path. One it had before is kept among the former.
func (r *Record) SetRoleID(path, roleID string) {
	for i := range r.Objects {
		o := &r.Objects[i]
		if o.Path != path || o.RoleID == roleID {
			continue
		}
		if o.RoleID != "" && !slices.Contains(r.FormerRoleIDs, o.RoleID) {
			r.FormerRoleIDs = append(slices.Clone(r.FormerRoleIDs), o.RoleID)
		}
		o.RoleID = roleID
	}
}

func recordKey(instanceID string) string { return "instance#" + instanceID }

// claimKey is injective: neither base paths nor names hold a #.
func claimKey(n Name) string {
	if strings.Contains(n.BasePath, "#") || strings.Contains(n.FQDN, "#") || n.FQDN == "" {
		panic(fmt.Sprintf("claim of %q below %q: grant lets no such name through", n.FQDN, n.BasePath))
	}
	return "claim#" + n.BasePath + "#" + n.FQDN
}

// nameOf takes a claim's key apart.
func nameOf(key string) (Name, bool) {
	parts := strings.Split(key, "#")
	if len(parts) != 3 || parts[0] != "claim" {
		return Name{}, false
	}
	return Name{BasePath: parts[1], FQDN: parts[2]}, true
}
