package handler

import (
	"context"
	"fmt"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// Findings are the findings of GuardDuty that put an instance into quarantine.
type Findings struct {
	// Severity is the lowest severity that counts; 0: no finding does.
	Severity float64
	// OwnAccount returns the function's own account. It is needed if Severity is not 0.
	OwnAccount func(context.Context) (string, error)
}

// check returns an error for a finding that puts no instance into quarantine: it wraps event.ErrIgnored if the finding is left alone,
// and is of kind fault.Refuse if its sender may not speak for the instance's account. It returns nil for an event without a finding.
// Whether the deployment serves the account is decided where the instance is looked up.
func (f Findings) check(ctx context.Context, e event.Event) error {
	found := e.Finding
	if found == nil {
		return nil
	}
	ignored := func(why string) error {
		return fault.New(fault.Refuse, fmt.Errorf("finding %s (%s, severity %g) about instance %s: %s: %w", found.ID, found.Type, found.Severity, e.ID, why, event.ErrIgnored))
	}
	switch {
	case f.Severity == 0:
		return ignored("no finding puts an instance into quarantine here")
	case found.Sample:
		return ignored("it is a sample")
	case found.Archived:
		return ignored("it is archived")
	case found.Severity < f.Severity:
		return ignored(fmt.Sprintf("its severity is below %g", f.Severity))
	case found.Sender == e.Account:
		return nil
	}
	own, err := f.OwnAccount(ctx)
	if err != nil {
		return fmt.Errorf("finding %s about instance %s: %w", found.ID, e.ID, err)
	}
	if found.Sender != own {
		return fault.Refusef("finding %s (%s) about instance %s of account %s was sent by account %+q: an account sends findings about its own instances only, except the functions' own (%s), if it administers GuardDuty",
			found.ID, found.Type, e.ID, e.Account, found.Sender, own)
	}
	return nil
}
