package converge

import (
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Request is what Converge is asked to do for one instance.
type Request struct {
	facts.Ref
	// At is when the request arose: the time of the event, or of the comparison that found a difference.
	At time.Time
	// Told is the state that the event stands for (event.Event.State); empty for a request without an event.
	Told facts.State
	// Verify compares the grant with Vault, whatever the ledger says.
	Verify bool
	// Absent says that EC2 was asked by the instance's ID in every place where it may be, and that no answer holds it.
	Absent bool
	// Leaving removes the grant of an instance that EC2 shows as running: Auto Scaling, asked, shows it as terminating.
	Leaving bool
	// Teardown removes the grant whatever EC2 shows: the deployment is torn down.
	Teardown bool
	// Untracked are paths in Vault that bear the instance's name and that no record names. They are taken into the
	// record, and removed with it, where the marker or the ledger shows that they are this deployment's.
	Untracked []string
}

// RequestOf returns the request of an event. It never removes a grant by the event alone: Leaving, Absent and Teardown are
// for callers that know more.
func RequestOf(e event.Event) Request {
	return Request{Ref: e.Ref, At: e.Time, Told: e.State, Verify: e.Verify}
}
