package reconcile

import (
	"errors"
	"fmt"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/certificates"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Mode is what a run does.
type Mode string

// The modes.
const (
	Detect  Mode = "detect"  // reports drift
	Correct Mode = "correct" // reports and repairs drift
	Doctor  Mode = "doctor"  // checks AWS, Vault and the ledger instead of the fleet
	// Teardown removes everything that the deployment made, also of running instances. Nothing is granted afterwards.
	Teardown Mode = "teardown"
	Explain  Mode = "explain" // explains one instance
	Who      Mode = "who"     // finds the instances that hold, or held, names
	Report   Mode = "report"  // reads the ledger, page by page
	// Certificates finds the stored certificates of ended instances and revokes them.
	Certificates Mode = "certificates"
	// Quarantine cuts named instances off though they run, until Release gives them their grants again.
	Quarantine Mode = "quarantine"
	Release    Mode = "release"
)

// IsQuestion reports whether a mode only reads and answers: about one instance, about names, or all of the ledger.
func (m Mode) IsQuestion() bool { return m == Explain || m == Who || m == Report }

// IsOrder reports whether a mode is a person's order about single instances.
func (m Mode) IsOrder() bool { return m == Quarantine || m == Release }

// Input is the function's input. The zero value means the whole fleet, in the mode of the settings.
type Input struct {
	Mode        Mode     `json:"mode,omitempty"`
	InstanceIDs []string `json:"instanceIds,omitempty"`
	Profile     string   `json:"profile,omitempty"`
	// Force deletes past the delete limit, and where an account or region shows no instance.
	Force bool `json:"force,omitempty"`
	// Confirm is the deployment's ID. Mode teardown requires it, so that no wrong deployment is torn down.
	Confirm string `json:"confirm,omitempty"`
	// NamesOnly compares only which objects exist and reads no contents.
	NamesOnly bool `json:"namesOnly,omitempty"`
	// Gone removes what is recorded of accounts or instances by an operator's word (gone.go).
	Gone *Gone `json:"gone,omitempty"`
	// Profiles is a packed bundle of profiles by which the run compares, in place of the active ones. It is for modes that change
	// nothing.
	Profiles []byte `json:"profiles,omitempty"`
	// Account and Region say where EC2 is asked about the instance of mode explain, besides the place that the ledger records. In the
	// modes quarantine and release they are the place of an instance without a record.
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`
	// Names are the names, addresses and objects that mode who looks for.
	Names []string `json:"names,omitempty"`
	// Current has mode who read claims and single records only. It finds no former holder, and no name that instances share.
	Current bool `json:"current,omitempty"`
	// Issued are certificates that Vault's audit log names, for mode certificates: they are recorded without being looked for.
	Issued []certificates.Issued `json:"issued,omitempty"`
	// By is the person who orders mode quarantine or release, as they name themselves.
	By string `json:"by,omitempty"`
	// Reason is why; mode quarantine requires it. It is one line of text.
	Reason string `json:"reason,omitempty"`
	// Cursor is the cursor of the answer to continue from.
	Cursor *Cursor `json:"cursor,omitempty"`
}

// CheckInput returns an error for an input that no mode accepts.
func CheckInput(in Input) error {
	if err := checkQuestion(in); err != nil {
		return err
	}
	if in.Mode == Certificates || len(in.Issued) > 0 {
		return checkCertificates(in)
	}
	switch in.Mode {
	case Explain:
		return nil // the answer says it of a malformed ID
	case Quarantine, Release:
		return checkOrder(in)
	case "", Detect, Correct, Doctor, Who, Report:
		if in.Confirm != "" {
			return fmt.Errorf("confirm is for mode %s", Teardown)
		}
	case Teardown:
		if in.Profile != "" || in.Force || in.NamesOnly {
			return fmt.Errorf("mode %s takes the whole deployment: leave profile, force and namesOnly out", Teardown)
		}
	default:
		return fmt.Errorf("mode: %q is none of %s, %s, %s, %s, %s, %s, %s, %s, %s, %s", in.Mode, Detect, Correct, Doctor, Teardown, Explain, Who, Quarantine, Release, Certificates, Report)
	}
	if in.Gone != nil {
		if err := checkGone(in); err != nil {
			return err
		}
	}
	if len(in.Profiles) > 0 && ((in.Mode != Detect && in.Mode != Doctor) || in.Gone != nil) {
		return fmt.Errorf("profiles is for mode %s and %s: make them the active ones to have them used", Detect, Doctor)
	}
	for _, id := range in.InstanceIDs {
		if !facts.IsInstanceID(id) {
			return fmt.Errorf("instanceIds: %+q is not the ID of an EC2 instance", id)
		}
	}
	if in.Cursor != nil && in.Cursor.Limit < 1 {
		return errors.New("cursor: its limit is not positive: copy the cursor of an answer unchanged")
	}
	return nil
}

// maxNames bounds the names of one question: a certificate can have many.
const maxNames = 200

// checkQuestion returns an error for a field of mode explain or who that another mode does not have, or that is missing.
func checkQuestion(in Input) error {
	isAbout := in.Profile != "" || in.Force || in.Confirm != "" || in.NamesOnly || in.Gone != nil || len(in.Profiles) > 0
	switch {
	case in.Mode != Explain && !in.Mode.IsOrder() && (in.Account != "" || in.Region != ""):
		return fmt.Errorf("account and region are for mode %s, %s and %s", Explain, Quarantine, Release)
	case !in.Mode.IsOrder() && (in.By != "" || in.Reason != ""):
		return fmt.Errorf("by and reason are for mode %s and %s", Quarantine, Release)
	case in.Mode != Who && (len(in.Names) > 0 || in.Current):
		return fmt.Errorf("names and current are for mode %s", Who)
	case !in.Mode.IsQuestion():
		return nil
	case isAbout:
		return fmt.Errorf("mode %s only reads: leave profile, force, confirm, namesOnly, gone and profiles out", in.Mode)
	case in.Mode == Who && len(in.InstanceIDs) > 0:
		return fmt.Errorf("mode %s asks by names: leave instanceIds out", Who)
	case in.Mode == Report && len(in.InstanceIDs) > 0:
		return fmt.Errorf("mode %s is for the whole ledger: leave instanceIds out", Report)
	case in.Mode == Who && (len(in.Names) == 0 || len(in.Names) > maxNames):
		return fmt.Errorf("mode %s needs 1 to %d names", Who, maxNames)
	case in.Mode == Who, in.Mode == Report:
		return nil
	case len(in.InstanceIDs) != 1 || in.Cursor != nil:
		return fmt.Errorf("mode %s is about one instance: name one in instanceIds, without a cursor", Explain)
	}
	return checkPlace(in)
}

// checkPlace returns an error for an account and region that are no place; nil if both are empty.
func checkPlace(in Input) error {
	switch {
	case (in.Account == "") != (in.Region == ""):
		return errors.New("account and region go together")
	case in.Account != "" && (!facts.IsAccount(in.Account) || !facts.IsRegion(in.Region)):
		return fmt.Errorf("%+q is not an account, or %+q not a region", in.Account, in.Region)
	}
	return nil
}

// maxIssued bounds the certificates of one input.
const maxIssued = 1000

// checkCertificates returns an error for a field that mode certificates does not have.
func checkCertificates(in Input) error {
	isAbout := !in.isWhole() || in.Force || in.Confirm != "" || in.NamesOnly || in.Gone != nil || len(in.Profiles) > 0 || in.Cursor != nil
	switch {
	case in.Mode != Certificates:
		return fmt.Errorf("issued is for mode %s", Certificates)
	case isAbout:
		return fmt.Errorf("mode %s is about all certificates: it takes issued and nothing else", Certificates)
	case len(in.Issued) > maxIssued:
		return fmt.Errorf("issued: %d certificates at once, and at most %d are allowed: send the rest in another input", len(in.Issued), maxIssued)
	}
	return nil
}

// isWhole reports whether the input asks for the whole fleet.
func (in Input) isWhole() bool { return len(in.InstanceIDs) == 0 && in.Profile == "" }

// Cursor is where a run continues in the next invocation.
type Cursor struct {
	// After is the last instance ID that is done, in the order of IDs.
	After string `json:"after"`
	// Limit is the number of recorded instances in a stretch.
	Limit int `json:"limit"`
	// Removed is the number of instances removed so far: the delete limit applies to the whole run.
	Removed int `json:"removed"`
	// RemovedByAccount is the same by account. A cursor of an earlier version lacks it: no account is known then.
	RemovedByAccount map[string]int `json:"removedByAccount,omitempty"`
	// Summary is the summary of the run so far.
	Summary Summary `json:"summary"`
	// Touched is what differed in the run so far.
	Touched *Touched `json:"touched,omitempty"`
	// StartedMs is when the run began, in Unix milliseconds.
	StartedMs int64 `json:"startedMs"`
	// BlockedReason is why deletes were withheld so far; empty if none were.
	BlockedReason string `json:"blockedReason,omitempty"`
}

// removedByAccount returns the number of instances removed so far, by account; "" for those of unknown accounts.
func (c *Cursor) removedByAccount() map[string]int {
	out := map[string]int{}
	unknown := c.Removed
	for account, n := range c.RemovedByAccount {
		if account != "" {
			out[account] = n
			unknown -= n
		}
	}
	if unknown > 0 {
		out[""] = unknown
	}
	return out
}

// setRemoved sets Removed and RemovedByAccount.
func (c *Cursor) setRemoved(byAccount map[string]int) {
	c.Removed, c.RemovedByAccount = 0, nil
	for account, n := range byAccount {
		c.Removed += n
		if account != "" {
			if c.RemovedByAccount == nil {
				c.RemovedByAccount = map[string]int{}
			}
			c.RemovedByAccount[account] = n
		}
	}
}
