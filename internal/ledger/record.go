// Package ledger keeps in a DynamoDB table what was made for which instance, and who may hold which name. Every
// path is written here before it is made in Vault, so that whatever a crash leaves behind is known by name.
package ledger

import (
	"slices"
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
	// Claims are the names and addresses that the instance holds, the FQDN among them. A record from before there were
	// several has none, and holds its FQDN below its base path.
	Claims []Name `dynamodbav:"claims,omitempty"`
	// Former are claims of an earlier grant, which stay while a certificate with them can still be good.
	Former []FormerName `dynamodbav:"former,omitempty"`
	// CertificateTTL is the longest that a certificate of any grant of the instance's can be good, in seconds; 0 in a record
	// from before it was noted.
	CertificateTTL int64    `dynamodbav:"certificate_ttl,omitempty"`
	Addresses      []string `dynamodbav:"addresses"`
	Objects        []Object `dynamodbav:"objects"`
	// LoginType is the auth role's auth_type, and TokenMaxTTL the longest that one of its tokens can live, in seconds; both
	// empty in a record from before they were noted.
	LoginType   string `dynamodbav:"login_type,omitempty"`
	TokenMaxTTL int64  `dynamodbav:"token_max_ttl,omitempty"`
	// UncutUntil is when the last token that a removal could not cut has ended; nil when all were cut.
	UncutUntil *time.Time `dynamodbav:"uncut_until,omitempty"`
	// Revoking are the paths whose certificates are to be revoked, of an instance whose removal is otherwise done.
	Revoking []string `dynamodbav:"revoking,omitempty"`
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

// Claim names the one instance that may hold a name.
type Claim struct {
	InstanceID string `dynamodbav:"instance_id"`
	Account    string `dynamodbav:"account"`
	Region     string `dynamodbav:"region"`
}

// Name is what one live instance alone may hold: a name or an address, see grant.Claim. The attributes have the names that
// fitted when a base path and an FQDN were all there was.
type Name struct {
	Under string `dynamodbav:"base_path"`
	Text  string `dynamodbav:"fqdn"`
}

func (n Name) String() string { return n.Text + " below " + n.Under }

// FormerName is a name that is held though the grant does not bear it any more.
type FormerName struct {
	Name
	// Until is when the last certificate with it has ended; zero while that is not known, and then the name is held as long
	// as the instance lives.
	Until time.Time `dynamodbav:"until,omitempty"`
}

// NamesOf returns what an instance must hold for a grant.
func NamesOf(g *grant.Grant) []Name {
	names := make([]Name, len(g.Claims))
	for i, c := range g.Claims {
		names[i] = Name{Under: c.Under, Text: c.Text}
	}
	return names
}

// Held are the names of the record's present grant.
func (r Record) Held() []Name {
	if len(r.Claims) > 0 || r.FQDN == "" || len(r.Objects) == 0 {
		return r.Claims
	}
	return []Name{{Under: r.BasePath, Text: r.FQDN}}
}

// Names are all names the instance may hold, each once: those of its grant and the former ones.
func (r Record) Names() []Name {
	names := slices.Clone(r.Held())
	for _, n := range r.Former {
		if !slices.Contains(names, n.Name) {
			names = append(names, n.Name)
		}
	}
	return names
}

// HeldUntil reports whether a name is a former one of the instance's, and until when.
func (r *Record) HeldUntil(name Name) (until time.Time, former bool) {
	if r == nil {
		return time.Time{}, false
	}
	for _, n := range r.Former {
		if n.Name == name {
			return n.Until, true
		}
	}
	return time.Time{}, false
}

// MakeFormer keeps names among the former ones; DateFormer says until when.
func (r *Record) MakeFormer(names []Name) {
	former := slices.Clone(r.Former)
	for _, n := range names {
		if _, known := r.HeldUntil(n); !known {
			former = append(former, FormerName{Name: n})
		}
	}
	r.Former = former
}

// DateFormer says until when those former names are held of which that is not known yet.
func (r *Record) DateFormer(until time.Time) {
	r.Former = slices.Clone(r.Former)
	for i := range r.Former {
		if r.Former[i].Until.IsZero() {
			r.Former[i].Until = until
		}
	}
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

// Holds reports whether the record begins with exactly the objects of a grant, in its order, and has its claims.
func (r Record) Holds(g *grant.Grant) bool {
	all := g.All()
	if len(r.Objects) < len(all) || r.FQDN != g.FQDN || r.BasePath != g.Profile.BasePath || !slices.Equal(r.Claims, NamesOf(g)) {
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
