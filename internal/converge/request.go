package converge

import (
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Request is what Converge is asked to do for one instance.
type Request struct {
	facts.Ref
	// At is when the request arose: the time of the event, or of the comparison that found a difference.
	At time.Time
	// By is the cause from which the time to ready or to cut-off is measured; empty for a repair.
	By ledger.Cause
	// Told is the state that the event reports (event.Event.State); empty for a request without an event.
	Told facts.State
	// Verify compares the grant with Vault, whatever the ledger says.
	Verify bool
	// Absent says that EC2 was asked for the instance's ID in every place where it may be, and that no answer has it.
	Absent bool
	// Leaving removes the grant of an instance that EC2 shows as running and Auto Scaling itself as terminating.
	Leaving bool
	// Volume is what Auto Scaling itself does with the root volume of an instance that EC2 shows as running.
	Volume Volume
	// AwaitNames is until when a name that a live instance holds is tried again, and not refused: a launch hook holds the instance.
	AwaitNames time.Time
	// Teardown removes the grant whatever EC2 shows: the deployment is torn down.
	Teardown bool
	// Gone says that an operator said that the instance no longer exists. EC2 does not show it as alive, or could not be asked.
	Gone bool
	// Quarantine puts the instance into quarantine; nil for another request.
	Quarantine *Order
	// Release ends the instance's quarantine; nil for another request.
	Release *Order
	// Untracked are paths in Vault that bear the instance's name and that no record names. Those that the marker or the ledger
	// shows to be this deployment's are added to the record and removed.
	Untracked []string
	// Batch is what the request shares with the others of its batch; nil for a request alone.
	Batch *Batch
}

// Volume is the state of an instance's root volume in its group; empty for a request about another thing.
type Volume string

// The states of a root volume.
const (
	// VolumeReplacing says that Auto Scaling shows the volume as being replaced.
	VolumeReplacing Volume = "replacing"
	// VolumeReplaced says that an event reported a replacement, and that Auto Scaling shows none now.
	VolumeReplaced Volume = "replaced"
)

// RequestOf returns the request of an event. It never removes a grant by the event alone: Leaving, Absent, Teardown and Gone
// are for callers that know more. The one exception is a finding, which the caller has checked.
func RequestOf(e event.Event) Request {
	return Request{Ref: e.Ref, At: e.Time, Told: e.State, Verify: e.Verify, Quarantine: orderOf(e.Finding)}
}

// byGuardDuty is who put an instance into quarantine by a finding.
const byGuardDuty = "GuardDuty"

// orderOf returns the order of a finding; nil for none.
func orderOf(f *event.Finding) *Order {
	if f == nil {
		return nil
	}
	return &Order{By: byGuardDuty, Reason: f.Type + ", finding " + f.ID, Source: ledger.ByFinding, LastSeen: f.LastSeen}
}
