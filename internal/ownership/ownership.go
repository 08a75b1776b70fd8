// Package ownership decides whose an object in Vault is. Making, removing and comparing grants all ask it. An object that is
// not ours stays as it is; only with CONFLICT_MODE=adopt may a grant replace it.
//
// A policy's marker names its owner. An object that cannot carry a marker belongs to the deployment whose ledger records
// it. Where the record was lost, the policies of the same instance speak for the objects beside them:
//
//	object                       evidence                                                     owner
//	policy                       our marker for this instance                                 ours
//	policy                       another deployment's marker for this instance                another's
//	policy                       no marker, or one for another instance                       unknown
//	other object, recorded       -, also if the record only retains it                        ours
//	other object, untracked      the record is lost                                           ours
//	auth role, untracked         the record is lost, and the role names a policy marked ours  ours
//	login leftovers              the record names a profile, or is lost                       ours
//	anything else                -                                                            unknown
//
// A record is lost when it does not exist or names no object, and the policies of the instance prove it: all policies of the
// grant exist and are marked ours (OfGrant), or there is a policy marked ours and none that is not (OfUntracked). The auth
// role of a grant needs no further proof, since making restores its policies; a removal must not delete a role without any of
// them. Login leftovers are the identity entity and the accesslist entry of an instance whose auth role is gone.
package ownership

import (
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Owner is whose an object is.
type Owner string

// The owners. Without CONFLICT_MODE=adopt, only an object that is Ours may be overwritten or deleted.
const (
	Ours    Owner = "ours"
	Another Owner = "another's" // another deployment's
	Unknown Owner = "unknown"
)

// Instance is one instance in the eyes of one deployment.
type Instance struct {
	Deployment string
	ID         string
}

// OwnerOf returns the owner of a policy by its marker alone. policy is Vault's answer; nil for a policy that does not
// exist, which is Unknown.
func (i Instance) OwnerOf(policy map[string]any) Owner {
	m, marked := grant.MarkerOf(policy)
	switch {
	case !marked || m.InstanceID != i.ID:
		return Unknown
	case m.Deployment == i.Deployment:
		return Ours
	}
	return Another
}

// NamesAnother returns the deployment in a policy's marker, which may be for any instance; ok is false for our deployment,
// and for a policy without a marker.
func (i Instance) NamesAnother(policy map[string]any) (deployment string, ok bool) {
	m, marked := grant.MarkerOf(policy)
	if !marked || m.Deployment == i.Deployment {
		return "", false
	}
	return m.Deployment, true
}

// Object is one object of an instance as Vault holds it.
type Object struct {
	Kind grant.Kind
	Path string
	// Data is Vault's answer; nil for an object that does not exist, and not nil for one that may exist and was not read.
	Data map[string]any
}

// Evidence is everything that shows whose the objects of one instance are.
type Evidence struct {
	instance Instance
	record   *ledger.Record
	ofGrant  bool
	lost     bool
	marked   []string // names of the policies that bear our marker
	another  bool
}

// OfGrant returns the evidence of the objects at the paths of a grant. record is the instance's; nil if there is none.
func OfGrant(i Instance, record *ledger.Record, objects []Object) Evidence {
	e, policies, _ := collect(i, record, objects)
	e.ofGrant = true
	e.lost = isEmpty(record) && policies > 0 && len(e.marked) == policies
	return e
}

// OfUntracked returns the evidence of objects that bear the instance's name, and that neither a record nor a grant names.
func OfUntracked(i Instance, record *ledger.Record, objects []Object) Evidence {
	e, _, unmarked := collect(i, record, objects)
	e.lost = isEmpty(record) && len(e.marked) > 0 && unmarked == 0
	return e
}

// collect counts the policies among objects, and those that exist without our marker.
func collect(i Instance, record *ledger.Record, objects []Object) (e Evidence, policies, unmarked int) {
	e = Evidence{instance: i, record: record}
	for _, o := range objects {
		if o.Kind != grant.KindPolicy {
			continue
		}
		policies++
		owner := i.OwnerOf(o.Data)
		switch {
		case owner == Ours:
			e.marked = append(e.marked, policyName(o.Path))
		case o.Data != nil:
			unmarked++
			e.another = e.another || owner == Another
		}
	}
	return e, policies, unmarked
}

func policyName(path string) string {
	name, _ := grant.SplitPolicyPath(path)
	return name
}

func isEmpty(r *ledger.Record) bool { return r == nil || len(r.Objects) == 0 }

// Lost reports whether the record is lost: the markers alone prove whose the objects are.
func (e Evidence) Lost() bool { return e.lost }

// IsAnothers reports whether the policies show the instance as another deployment's: one bears another's marker, and none
// bears ours.
func (e Evidence) IsAnothers() bool { return e.another && len(e.marked) == 0 }

// OwnerOf returns the owner of an object, by the table of the package.
func (e Evidence) OwnerOf(o Object) Owner {
	if o.Kind == grant.KindPolicy {
		return e.instance.OwnerOf(o.Data)
	}
	isRecorded := e.record != nil && (e.record.Has(o.Path) || e.record.Retains(o.Path))
	needsProof := o.Kind == grant.KindAuthRole && !e.ofGrant
	isProven := e.lost && (!needsProof || grant.HasTokenPolicy(o.Data, e.marked))
	if isRecorded || isProven {
		return Ours
	}
	return Unknown
}

// OwnerOfLeftovers returns the owner of the instance's login leftovers.
func (e Evidence) OwnerOfLeftovers() Owner {
	wasGranted := e.record != nil && e.record.Profile != ""
	if wasGranted || e.lost {
		return Ours
	}
	return Unknown
}
