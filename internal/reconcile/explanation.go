package reconcile

import (
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Explanation is the answer to mode explain: everything that is known of one instance. It has no contents of Vault's objects but
// those in the differences of Drift.
type Explanation struct {
	Mode       Mode   `json:"mode"`
	Deployment string `json:"deployment"`
	Namespace  string `json:"namespace,omitempty"`
	// Profiles is the digest of the profiles; empty for those that are part of the function.
	Profiles   string    `json:"profiles,omitempty"`
	At         time.Time `json:"at"`
	InstanceID string    `json:"instanceId"`
	Verdict
	// Unread is what could not be read; the rest of the explanation holds without it.
	Unread []fault.Unread `json:"unread"`
	// EC2 is nil if EC2 could not be asked, or does not know the instance.
	EC2     *SeenInstance `json:"ec2"`
	Asked   []string      `json:"asked"` // the places where EC2 was asked
	Group   *SeenGroup    `json:"group"` // nil for an instance without a group, or of an unknown one
	Matches []string      `json:"matches"`
	// Misses are the profiles that do not match, the closest first.
	Misses []Miss `json:"misses"`
	// Grant is what the instance is granted by the profile that matches; nil if it gets nothing.
	Grant *WantedGrant `json:"grant"`
	// Refusal is why the instance gets no grant, or no change of it; nil if nothing was refused.
	Refusal *Refusal     `json:"refusal"`
	Record  *SeenRecord  `json:"record"` // in the ledger; nil if there is none
	Objects []SeenObject `json:"objects"`
	Names   []SeenName   `json:"names"`
	// Waiting are the instances that wait, or waited, for a name of this one.
	Waiting []string `json:"waiting"`
	Login   Login    `json:"login"`
	// Compared reports whether Drift is complete.
	Compared bool    `json:"compared"`
	Drift    []Drift `json:"drift"`
}

// Verdict is the explanation in a few words.
type Verdict struct {
	Status Status `json:"status"`
	// OK reports whether the instance has its grant, or has none and is gone.
	OK      bool   `json:"ok"`
	Summary string `json:"summary"`
	Next    string `json:"next"` // the next step
}

// Status says where an instance is between its start and its end.
type Status string

// The statuses.
const (
	Granted    Status = "granted"     // the grant is as it should be
	Drifted    Status = "drifted"     // something of the grant differs
	NotGranted Status = "not-granted" // a profile matches, and nothing was granted yet
	Awaiting   Status = "awaiting"    // the instance lacks a value that may still come
	Busy       Status = "busy"        // a function works on the instance, or waits for a time
	Unmatched  Status = "unmatched"   // no profile matches
	RefusedNow Status = "refused"     // a profile matches, and its grant is refused
	NameHeld   Status = "name-held"   // another instance holds a name
	Conflicted Status = "conflicting" // an object is foreign, or of unknown owner
	Leaving    Status = "leaving"     // Auto Scaling terminates it
	Stopped    Status = "stopped"     // it is stopped, and no function touches it
	ToRemove   Status = "to-remove"   // it is gone, and not all of its grant is
	Removed    Status = "removed"     // it is gone, and so is its grant
	// InQuarantine: it was cut off though it runs, and gets no grant until it is released.
	InQuarantine Status = "in-quarantine"
	TornDown     Status = "torn-down" // nothing is granted to any instance
	Unheard      Status = "unknown"   // EC2, the ledger and Vault do not know it
	Malformed    Status = "malformed" // it is no instance ID
	Undecided    Status = "undecided" // too little could be read
)

// SeenInstance is an instance as EC2 and IAM describe it.
type SeenInstance struct {
	Account          string    `json:"account"`
	Region           string    `json:"region"`
	AvailabilityZone string    `json:"availabilityZone"`
	State            string    `json:"state"`
	LaunchTime       time.Time `json:"launchTime"`
	VPCID            string    `json:"vpcId"`
	ImageID          string    `json:"imageId"`
	PrivateDNSName   string    `json:"privateDnsName"`
	Addresses        []string  `json:"addresses"`
	InstanceProfile  string    `json:"iamInstanceProfileArn"`
	// Role is empty if IAM was not asked: it is asked for a live instance only, and where the role can decide.
	Role            string `json:"iamRoleArn"`
	RoleUnconfirmed bool   `json:"roleUnconfirmed,omitempty"` // IAM did not answer: the role is from an earlier answer
	// Tags are those that a profile uses.
	Tags map[string]string `json:"tags"`
	// Compared reports whether reconcile compares this account and region by itself.
	Compared bool `json:"compared"`
}

// SeenGroup is an instance's Auto Scaling group.
type SeenGroup struct {
	Name string `json:"name"`
	// State is as Auto Scaling names it: in a state that ends with :Wait a lifecycle hook holds the instance.
	State string `json:"state"`
}

// Miss is a profile that does not match, with the conditions that the instance does not meet.
type Miss struct {
	Profile string   `json:"profile"`
	Unmet   []string `json:"unmet"`
}

// WantedGrant is what a profile grants to the instance.
type WantedGrant struct {
	Profile  string `json:"profile"`
	FQDN     string `json:"fqdn"`
	AuthType string `json:"authType"`
	// Modes are the kinds of objects whose drift is not repaired, with the mode of each.
	Modes map[grant.Kind]grant.DriftMode `json:"modes,omitempty"`
	// Retained are the outputs whose objects stay in Vault when the grant is removed.
	Retained []string `json:"retained,omitempty"`
}

// Refusal is why an instance gets no grant, or no change of it.
type Refusal struct {
	Error string `json:"error"`
	// Since is when it was recorded first; nil if the ledger does not have it.
	Since *time.Time `json:"since"`
}

// SeenRecord is an instance's record in the ledger.
type SeenRecord struct {
	State     ledger.State `json:"state"`
	Account   string       `json:"account"`
	Region    string       `json:"region"`
	Profile   string       `json:"profile"`
	FQDN      string       `json:"fqdn"`
	Addresses []string     `json:"addresses"`
	CreatedAt time.Time    `json:"createdAt"`
	MadeAt    *time.Time   `json:"madeAt"` // the last intent
	UpdatedAt time.Time    `json:"updatedAt"`
	DeletedAt *time.Time   `json:"deletedAt"` // of a tombstone
	ExpiresAt *time.Time   `json:"expiresAt"` // of a tombstone
	// LeasedUntil is until when a run has the lease; nil without one.
	LeasedUntil    *time.Time `json:"leasedUntil"`
	QuietUntil     *time.Time `json:"quietUntil"`
	LeavingSince   *time.Time `json:"leavingSince"`
	ReplacingSince *time.Time `json:"replacingSince"`
	UncutUntil     *time.Time `json:"uncutUntil"`
	// Revoking is the number of lease prefixes whose certificates are still to be revoked.
	Revoking  int    `json:"revoking"`
	Attempts  int    `json:"attempts"`
	LastError string `json:"lastError"`
	// Quarantine is the mark of an instance that is, or was, in quarantine; nil for any other.
	Quarantine *SeenQuarantine `json:"quarantine,omitempty"`
	Released   []ReleasedName  `json:"released"`
	Program    string          `json:"program"`
}

// ReleasedName is a name that an instance held until a time.
type ReleasedName struct {
	Name  string    `json:"name"`
	Under string    `json:"under"`
	At    time.Time `json:"at"`
}

// Presence reports whether something exists.
type Presence string

// The presences.
const (
	Yes     Presence = "yes"
	No      Presence = "no"
	Unknown Presence = "unknown" // it could not be read
)

// SeenObject is an object at a path that the grant or the record names, or that Vault lists under the instance's name.
type SeenObject struct {
	Object   grant.Kind `json:"object"`
	Path     string     `json:"path"`
	Granted  bool       `json:"granted"`
	Recorded bool       `json:"recorded"`
	InVault  Presence   `json:"inVault"`
	// Retained reports whether it stays in Vault although the grant that made it does not have it any more.
	Retained bool `json:"retained,omitempty"`
}

// SeenName is a name or an address of the grant or the record, with the claim on it.
type SeenName struct {
	Name    string `json:"name"`
	Under   string `json:"under"` // the PKI mount or the base path
	Granted bool   `json:"granted"`
	// HeldBy is the instance that holds it; empty if none does, or if the claim could not be read.
	HeldBy string `json:"heldBy"`
	// Until is the end of a former name, which the grant no longer has.
	Until *time.Time `json:"until"`
}

// Login is what Vault knows of the instance's logins.
type Login struct {
	// LoggedIn reports whether the instance ever logged in to the present auth role.
	LoggedIn Presence `json:"loggedIn"`
	// First and Last are the times of logins by the instance's entry in the access list, which only a login of type ec2 makes. For
	// another login First is the time of its identity entity.
	First    *time.Time `json:"first"`
	Last     *time.Time `json:"last"`
	EntityID string     `json:"entityId"`
}
