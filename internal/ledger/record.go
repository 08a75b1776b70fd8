package ledger

import (
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// State is the state of a record.
type State string

// The states of a record. docs/architecture.md has their transitions.
const (
	Provisioning   State = "provisioning"
	Active         State = "active"
	Deprovisioning State = "deprovisioning"
	Deleted        State = "deleted"
	Refused        State = "refused"
)

// Object is a recorded object. A removal deletes it at the path at which it was made, whatever the settings say by then.
type Object struct {
	Kind   grant.Kind `dynamodbav:"kind"`
	Path   string     `dynamodbav:"path"`
	SHA256 string     `dynamodbav:"sha256"`
	// RoleID is the role_id of an auth role, the alias of its logins' identity. It is empty for other kinds, and until the role
	// was read.
	RoleID string `dynamodbav:"role_id,omitempty"`
	// Left reports whether the run of the present intent leaves the object as it found it, by LeavesDrift.
	Left bool `dynamodbav:"left,omitempty"`
	// Retain reports whether the object stays in Vault when the instance's grant is removed.
	Retain bool `dynamodbav:"retain,omitempty"`
}

// Record is an instance's item in the ledger.
type Record struct {
	InstanceID    string `dynamodbav:"instance_id"`
	State         State  `dynamodbav:"state"`
	Account       string `dynamodbav:"account"`
	Region        string `dynamodbav:"region"`
	Profile       string `dynamodbav:"profile"`
	ProfileDigest string `dynamodbav:"profile_digest"`
	BasePath      string `dynamodbav:"base_path"`
	FQDN          string `dynamodbav:"fqdn"`
	// Claims are the names and addresses of the instance's grant, the FQDN among them. A record of an earlier version has none,
	// and holds its FQDN below its base path: see Held.
	Claims []Name `dynamodbav:"claims,omitempty"`
	// Former are names of an earlier grant. They stay held while a certificate with them can be valid.
	Former []FormerName `dynamodbav:"former,omitempty"`
	// Released are names that the instance gave up within the time of a tombstone, the latest last. Nothing is decided by them: they
	// show who held a name before. The ledger sets them.
	Released []ReleasedName `dynamodbav:"released,omitempty"`
	// CertificateTTL is the longest validity of a certificate of any of the instance's grants, in seconds; 0 if unknown.
	CertificateTTL int64 `dynamodbav:"certificate_ttl,omitempty"`
	// CertificateBackdated is the longest time by which the begin of a certificate of any of the instance's grants lies before its
	// issuance, in seconds and at least 1; 0 if unknown.
	CertificateBackdated int64    `dynamodbav:"certificate_backdated,omitempty"`
	Addresses            []string `dynamodbav:"addresses"`
	Objects              []Object `dynamodbav:"objects"`
	// Retained are objects of the instance that stay in Vault although its grant has them no more. They are this deployment's: the
	// record is the proof, so that a tombstone with some does not expire.
	Retained []Object `dynamodbav:"retained,omitempty"`
	// LoginType is the auth role's auth_type; empty in a record of an earlier version.
	LoginType string `dynamodbav:"login_type,omitempty"`
	// TokenMaxTTL is the longest life of a token of the auth role, in seconds; 0 in a record of an earlier version.
	TokenMaxTTL int64 `dynamodbav:"token_max_ttl,omitempty"`
	// UncutUntil is when the last token that a removal could not cut expires, or nil if all were cut.
	UncutUntil *time.Time `dynamodbav:"uncut_until,omitempty"`
	// Revoking are the prefixes of certificate leases still to revoke, of an instance whose removal is otherwise done.
	Revoking []string `dynamodbav:"revoking,omitempty"`
	// ExtraPolicies reports whether the auth role has policies that outlive the instance's own objects.
	ExtraPolicies bool `dynamodbav:"extra_policies,omitempty"`
	// QuietUntil is when all logins that were in flight at the deletion of the auth role have ended, or nil if the removal need
	// not wait for them.
	QuietUntil *time.Time `dynamodbav:"quiet_until,omitempty"`
	// LeavingSince is when a removal began because Auto Scaling was terminating the instance, while EC2 still showed it as
	// running; or nil.
	LeavingSince *time.Time `dynamodbav:"leaving_since,omitempty"`
	// ReplacingSince is when Auto Scaling was last seen replacing the instance's root volume, whose login is to be reset
	// after that; or nil.
	ReplacingSince *time.Time `dynamodbav:"replacing_since,omitempty"`
	// Quarantine is the mark of an instance that was cut off while it ran, or was before; nil for any other.
	Quarantine *Quarantine `dynamodbav:"quarantine,omitempty"`
	// FormerRoleIDs are the role_ids of deleted auth roles, whose tokens may live. A tombstone keeps them, since a login in
	// flight during the removal can end after it.
	FormerRoleIDs []string `dynamodbav:"former_role_ids,omitempty"`
	// MadeAt is when the last intent was written; nil in a record of an earlier version. Objects were written only while that run
	// had its lease.
	MadeAt *time.Time `dynamodbav:"made_at,omitempty"`
	// Ready is the time to ready of the first grant, and Cut the time to cut-off of the removal after it; nil in a record of an earlier
	// version. Nothing is decided by them: they are for the report.
	Ready     *Span     `dynamodbav:"ready,omitempty"`
	Cut       *Span     `dynamodbav:"cut,omitempty"`
	EventTime time.Time `dynamodbav:"event_time"`
	CreatedAt time.Time `dynamodbav:"created_at"`
	UpdatedAt time.Time `dynamodbav:"updated_at"`
	// DeletedAt is when the record became a tombstone, or nil.
	DeletedAt *time.Time `dynamodbav:"deleted_at,omitempty"`
	Attempts  int        `dynamodbav:"attempts"`
	LastError string     `dynamodbav:"last_error"`

	// Version is one more at each write. The ledger sets it and the fields below.
	Version    int64  `dynamodbav:"version"`
	LeaseOwner string `dynamodbav:"lease_owner,omitempty"`
	// LeaseExpiresAt is in Unix time, in milliseconds.
	LeaseExpiresAt int64 `dynamodbav:"lease_expires_at,omitempty"`
	// Program is the version of the program that made the last write; empty in a record of an earlier version.
	Program string `dynamodbav:"program,omitempty"`
	// WriteID is new at each write. If an answer is lost, the SDK repeats the write, and the condition fails because the first
	// try succeeded: the ID shows that the item is the write's own.
	WriteID string `dynamodbav:"write_id"`
	// ExpiresAt is DynamoDB's TTL in Unix time, in seconds. It is 0 for a record that is no tombstone, and for an instance that lives in
	// quarantine.
	ExpiresAt int64 `dynamodbav:"expires_at,omitempty"`
}

// Place returns the place of the instance.
func (r *Record) Place() facts.Place { return facts.Place{Account: r.Account, Region: r.Region} }

// Leaves reports whether Auto Scaling terminates the instance, so that it gets no grant although it may run for hours. An
// instance that was launched again after LeavingSince counts as a new one. It is false for a nil record.
func (r *Record) Leaves(launched time.Time) bool {
	return r != nil && r.LeavingSince != nil && !launched.After(*r.LeavingSince)
}

// object returns the recorded object at a path; the zero Object if there is none.
func (r *Record) object(path string) (o Object, ok bool) {
	i := slices.IndexFunc(r.Objects, func(o Object) bool { return o.Path == path })
	if i < 0 {
		return Object{}, false
	}
	return r.Objects[i], true
}

// Has reports whether the record names a path.
func (r *Record) Has(path string) bool {
	_, ok := r.object(path)
	return ok
}

// SHA256 returns the digest of the object written to a path, or an empty string if the record does not name the path.
func (r *Record) SHA256(path string) string {
	o, _ := r.object(path)
	return o.SHA256
}

// RoleID returns the role_id of the auth role recorded at a path, or an empty string if it is not known.
func (r *Record) RoleID(path string) string {
	o, _ := r.object(path)
	return o.RoleID
}

// Holds reports whether the record begins with exactly the objects of a grant, in their order, and has the grant's claims.
func (r *Record) Holds(g *grant.Grant) bool {
	all := g.All()
	if len(r.Objects) < len(all) || r.FQDN != g.FQDN || r.BasePath != g.Profile.BasePath || !slices.Equal(r.Claims, NamesOf(g)) || !r.RetainsAs(g) {
		return false
	}
	for i, o := range all {
		if r.Objects[i].Path != o.Path || r.Objects[i].SHA256 != o.SHA256() {
			return false
		}
	}
	return true
}

// LeavesDrift reports whether an object of a grant is not written, whatever Vault has at its path: its kind's mode in the profile is
// not grant.DriftCorrect, and the object was written before as it is granted now. An object whose own grant changed is written. It is
// false for a nil record, and for an object of a removal, unless the removal retained it.
func (r *Record) LeavesDrift(g *grant.Grant, o grant.Object) bool {
	if r == nil || g.Profile.Reconcile.Of(o.Kind) == grant.DriftCorrect {
		return false
	}
	recorded, ok := r.object(o.Path)
	wasWritten := r.State == Active || (r.State == Provisioning && recorded.Left)
	if !ok {
		recorded, ok = r.retained(o.Path)
		wasWritten = ok
	}
	return ok && wasWritten && recorded.SHA256 == o.SHA256()
}

// RoleIDs returns the known role_ids of all auth roles of the instance, the deleted ones included.
func (r *Record) RoleIDs() []string {
	ids := slices.Clone(r.FormerRoleIDs)
	for _, o := range r.Objects {
		if o.RoleID != "" && !slices.Contains(ids, o.RoleID) {
			ids = append(ids, o.RoleID)
		}
	}
	return ids
}

// SetRoleID sets the role_id of the auth role at a path. Its former role_id is added to FormerRoleIDs. A path that the record
// does not name changes nothing.
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
