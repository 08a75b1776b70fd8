package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// This file says in one sentence what an instance has or lacks, and what the next step is. It decides nothing by itself: it names what
// the comparison, the record and EC2's answer say.

// verdict returns the verdict on an instance.
func (x *Explainer) verdict(t *story) Verdict {
	v := x.verdictByState(t)
	if t.tornDown != nil && v.Status != Removed && v.Status != Unheard {
		v = Verdict{
			Status: TornDown, Summary: "nothing is granted: this deployment was torn down at " + at(*t.tornDown),
			Next: "delete the item teardown from the ledger's table to take the deployment up again",
		}
	}
	return v
}

func (x *Explainer) verdictByState(t *story) Verdict {
	f := t.sighting.Facts
	switch {
	case t.seenErr != nil:
		return x.undecided(t, "EC2 could not be asked about it")
	case !t.sighting.Found:
		return x.verdictOfAbsent(t)
	case t.record.InQuarantine() && t.isAlive() && !t.isBusy(t.now):
		return x.inQuarantine(t)
	case t.sighting.LacksRole() && f.State.IsLive():
		return x.refused(t, t.sighting.Err)
	case t.sighting.Err != nil:
		return x.undecided(t, "EC2's description of it cannot be used")
	case f.State.IsEnding():
		return x.verdictOfEnded(t, "it is "+string(f.State))
	case !f.State.IsLive():
		return x.verdictOfStopped(t)
	}
	return x.verdictOfLive(t)
}

// undecided returns the verdict where too little could be read.
func (x *Explainer) undecided(t *story, why string) Verdict {
	summary := "it is not known whether it has its grant: " + why
	if t.hasLiveRecord() {
		summary += fmt.Sprintf("; the ledger records it as %s since %s", t.record.State, at(t.record.UpdatedAt))
	}
	return Verdict{Status: Undecided, Summary: summary, Next: x.command("doctor") + " checks what could not be read; then ask again"}
}

// verdictOfAbsent returns the verdict on an instance that EC2 does not show.
func (x *Explainer) verdictOfAbsent(t *story) Verdict {
	where := "EC2 does not show it in " + nameOf(t.asked)
	isNew := t.hasLiveRecord() && t.record.QuietUntil == nil && isRecent(t.record.UpdatedAt, t.now)
	switch {
	case t.recordErr != nil || !t.seesVault():
		return x.undecided(t, where+", and the ledger or Vault could not be read")
	case t.record == nil && len(t.paths)+len(t.leftovers) == 0:
		return Verdict{
			Status: Unheard, Summary: where + ", and neither the ledger nor Vault knows it",
			Next: "check the ID; if it is in another account or region, name them with --account and --region. A terminated instance is forgotten by EC2 " +
				"within an hour, and by the ledger after 30 days",
		}
	case isNew:
		return Verdict{
			Status: Busy, Summary: where + ", and its record is younger than " + minutes(converge.Grace) + ": EC2 may not show it yet",
			Next: "ask again after " + at(t.record.UpdatedAt.Add(converge.Grace)),
		}
	}
	return x.verdictOfEnded(t, where)
}

// verdictOfEnded returns the verdict on an instance that is gone, or about to be.
func (x *Explainer) verdictOfEnded(t *story, why string) Verdict {
	isEnding := t.sighting.Facts.State == facts.ShuttingDown && !x.OnShuttingDown
	switch {
	case t.isBusy(t.now):
		return busy(t)
	case isEnding && t.hasLiveRecord():
		return Verdict{Status: Busy, Summary: why + ": its grant is removed when it is terminated", Next: "ask again in some minutes"}
	case !t.compared && t.hasLiveRecord():
		return x.undecided(t, why+", and what is left of its grant could not be read")
	case t.hasLiveRecord() || len(t.rows) > 0:
		return Verdict{
			Status: ToRemove, Summary: why + ", and not all of its grant is removed" + lastError(t),
			Next: cmp.Or(conflictStep(t.rows), x.notCompared(t, "add it there; if the instance no longer exists: "+x.command("reconcile")+" --gone-instance "+t.id),
				"reconcile removes it at its next run; now: "+x.correct(t)+"; an alarm of the deprovision queue has its own section in infra/RUNBOOK.md"),
		}
	case t.record == nil:
		return Verdict{Status: Removed, OK: true, Summary: why + ", and it has no grant", Next: "nothing is left to do"}
	}
	removed := t.record.UpdatedAt
	if t.record.DeletedAt != nil {
		removed = *t.record.DeletedAt
	}
	summary := why + ", and its grant was removed by " + at(removed)
	if n := len(t.record.Retained); n > 0 {
		summary += fmt.Sprintf("; objects that its profile retains in Vault: %d", n)
	}
	return Verdict{
		Status: Removed, OK: true, Summary: summary,
		Next: "nothing is left to do; who held its names: " + x.command("who") + " " + t.id,
	}
}

// verdictOfStopped returns the verdict on a stopped instance.
func (x *Explainer) verdictOfStopped(t *story) Verdict {
	state := string(t.sighting.Facts.State)
	if len(t.rows) > 0 {
		return x.byRows(t)
	}
	if !t.hasLiveRecord() {
		return Verdict{Status: Stopped, OK: true, Summary: "it is " + state + " and has no grant", Next: "a profile that matches grants when it runs"}
	}
	return Verdict{
		Status: Stopped, OK: true, Summary: fmt.Sprintf("it is %s; the ledger records its grant as %s, and Vault lets it log in only while it runs", state, t.record.State),
		Next: "nothing is left to do; the grant is compared when it runs again",
	}
}

// verdictOfLive returns the verdict on an instance that EC2 shows as pending or running.
func (x *Explainer) verdictOfLive(t *story) Verdict {
	f := t.sighting.Facts
	switch {
	case x.hasNoProfiles():
		return x.undecided(t, "no profiles could be loaded")
	case t.isBusy(t.now):
		return busy(t)
	case t.record.Leaves(f.LaunchTime):
		v := Verdict{Status: Leaving, Summary: "its Auto Scaling group has been terminating it since " + at(*t.record.LeavingSince) + ", so that it gets no grant", Next: "nothing is left to do"}
		if len(t.rows) > 0 {
			v.Summary, v.Next = v.Summary+", and not all of its grant is removed", "now: "+x.correct(t)
		}
		return v
	case errors.Is(t.refusal, grant.ErrNotYet) && converge.MayComeLate(f, time.Time{}, t.now):
		return Verdict{
			Status: Awaiting, Summary: "a value that its grant needs may still come: " + t.refusal.Error(),
			Next: fmt.Sprintf("ask again; the functions wait %s from the start, and then refuse the grant", minutes(converge.LateTime)),
		}
	case t.refusal != nil:
		return x.refused(t, t.refusal)
	case t.profile == nil:
		return x.unmatched(t)
	case t.recordErr != nil:
		return x.undecided(t, "the ledger could not be read; profile "+t.profile.Name+" matches it")
	case !t.compared:
		return x.undecided(t, "its objects could not be compared; profile "+t.profile.Name+" matches it")
	case len(t.rows) > 0:
		return x.byRows(t)
	}
	return x.granted(t)
}

// unmatched returns the verdict on an instance that no profile matches.
func (x *Explainer) unmatched(t *story) Verdict {
	v := Verdict{
		Status: Unmatched, Summary: "no profile matches it, so that it gets no grant",
		Next: "change match of the profile, or the instance's role, instance profile or tags: docs/profiles.md; the functions see a new tag by themselves",
	}
	if closest := x.Profiles.Closest(t.sighting.Facts); closest != "" {
		v.Summary += "; the closest is " + closest
	}
	if len(t.rows) > 0 {
		v.Next += ". Its earlier grant is removed at the next run of reconcile; now: " + x.correct(t)
	}
	return v
}

// refused returns the verdict on an instance whose grant is refused for a reason.
func (x *Explainer) refused(t *story, why error) Verdict {
	v := Verdict{Status: RefusedNow, Summary: "its grant is refused: " + why.Error(), Next: "repair that; then " + x.correct(t) + ". The causes: infra/RUNBOOK.md#refused"}
	if r := t.refusalNow(); r != nil && r.Since != nil {
		v.Summary = "its grant has been refused since " + at(*r.Since) + ": " + why.Error()
	}
	if t.hasLiveRecord() && len(t.record.Objects) > 0 {
		v.Summary += "; it keeps its earlier grant"
	}
	return v
}

// byRows returns the verdict on an instance with differences.
func (x *Explainer) byRows(t *story) Verdict {
	isOf := func(reason Reason) bool {
		return slices.ContainsFunc(t.rows, func(c Change) bool { return c.Reason == reason })
	}
	held := slices.IndexFunc(t.rows, func(c Change) bool { return c.heldBy != "" })
	switch {
	case held >= 0 && t.rows[held].Action == None:
		return Verdict{
			Status: NameHeld, Summary: "it gets no grant: " + t.rows[held].Error + lastError(t),
			Next: "the functions grant by themselves when that instance is gone; to see it: " + x.command("explain") + " " + t.rows[held].heldBy,
		}
	case held >= 0:
		return Verdict{Status: NotGranted, Summary: "instance " + t.rows[held].heldBy + " held its name and is gone" + lastError(t), Next: x.correct(t)}
	case isOf(Conflicting):
		return Verdict{Status: Conflicted, Summary: "an object is not this deployment's" + lastError(t), Next: conflictStep(t.rows)}
	case slices.ContainsFunc(t.rows, func(c Change) bool { return c.failed }):
		return x.undecided(t, t.rows[0].Error)
	case isOf(Missing) && !t.hasObjects():
		return x.notGranted(t)
	case !slices.ContainsFunc(t.rows, func(c Change) bool { return !c.left }):
		return Verdict{
			Status: Drifted, Summary: fmt.Sprintf("it has its grant, which differs in %d places from what profile %s gives it, and the profile only detects that%s", len(t.rows), t.rows[0].profile, lastError(t)),
			Next: "undo the change in Vault, or change reconcile in the profile: docs/profiles.md#drift-that-is-not-repaired",
		}
	}
	return Verdict{
		Status: Drifted, Summary: fmt.Sprintf("its grant differs in %d places from what profile %s gives it%s", len(t.rows), cmp.Or(t.rows[0].profile, "-"), lastError(t)),
		Next: cmp.Or(x.notCompared(t, "add it there"), "reconcile repairs it at its next run, unless it only reports; now: "+x.correct(t)),
	}
}

// hasObjects reports whether the record names objects of the instance.
func (t *story) hasObjects() bool { return t.hasLiveRecord() && len(t.record.Objects) > 0 }

// notGranted returns the verdict on an instance that a profile matches and that was granted nothing.
func (x *Explainer) notGranted(t *story) Verdict {
	if t.record != nil && t.record.LastError != "" {
		return Verdict{
			Status: RefusedNow, Summary: "profile " + t.profile.Name + " matches it, and its grant was refused" + lastError(t),
			Next: "if the cause is repaired: " + x.correct(t) + ". The causes: infra/RUNBOOK.md#refused",
		}
	}
	return Verdict{
		Status: NotGranted, Summary: "profile " + t.profile.Name + " matches it, and it was granted nothing",
		Next: cmp.Or(x.notCompared(t, "add it there, or check that its events are forwarded (docs/accounts.md)"),
			"its event may be on the way, be lost, or wait in a queue (infra/RUNBOOK.md#provision-dead-letters); reconcile grants at its next run; now: "+x.correct(t)),
	}
}

// notCompared returns the next step for an instance in a place that reconcile does not compare, where only an event leads to a grant or
// its removal; empty for any other instance.
func (x *Explainer) notCompared(t *story, step string) string {
	p := t.place
	if t.record != nil && p == (facts.Place{}) {
		p = t.record.Place()
	}
	if p == (facts.Place{}) || slices.Contains(t.own, p) {
		return ""
	}
	return "reconcile does not compare " + p.Name() + " (ReconcileAccounts, ReconcileRegions), so that only an event of the instance reaches it: " + step
}

// granted returns the verdict on an instance without a difference.
func (x *Explainer) granted(t *story) Verdict {
	v := Verdict{Status: Granted, OK: true, Summary: "it has the grant of profile " + t.profile.Name}
	const look = "on the instance: journalctl -u vault-agent -n 50, and docs/troubleshooting.md for what it shows"
	switch {
	case t.login.LoggedIn == No:
		v.Summary += ", and it has never logged in"
		v.Next = "it has what it needs to log in; " + look
	case t.login.LoggedIn == Yes && t.login.Last != nil:
		v.Summary += "; its last login was at " + at(*t.login.Last)
		v.Next = "nothing is left to do in Vault; for a certificate that is missing, " + look
	case t.login.LoggedIn == Yes:
		v.Summary += ", and it has logged in"
		v.Next = "nothing is left to do in Vault; for a certificate that is missing, " + look
	default:
		v.Next = "nothing is left to do in Vault; whether it logged in could not be read"
	}
	return v
}

// busy returns the verdict on an instance that is left to the run that works on it.
func busy(t *story) Verdict {
	until := time.UnixMilli(t.record.LeaseExpiresAt)
	summary := "a function works on it"
	if q := t.record.QuietUntil; q != nil {
		until, summary = *q, "its grant is removed, and the second token cut waits until no login can be in flight"
	}
	if t.record.LastError != "" {
		summary += lastError(t)
	}
	return Verdict{Status: Busy, Summary: summary, Next: "ask again after " + at(until)}
}

// conflictStep returns the next step for rows with a conflict; empty if there is none.
func conflictStep(rows []Change) string {
	for _, c := range rows {
		if c.Reason == Conflicting && c.Error != "" {
			return c.Path + ": " + c.Error + " (infra/RUNBOOK.md#conflicting)"
		}
	}
	return ""
}

// lastError returns the words for the error that the record has; empty if it has none.
func lastError(t *story) string {
	if t.record == nil || t.record.LastError == "" || t.record.State == ledger.Deleted {
		return ""
	}
	return fmt.Sprintf(" (recorded since %s: %s)", at(t.record.UpdatedAt), t.record.LastError)
}

// command returns a call of vault-ec2 for this deployment.
func (x *Explainer) command(name string) string {
	return "vault-ec2 " + name + " --stack " + x.Realm.Deployment
}

// correct returns the call that repairs the instance alone.
func (x *Explainer) correct(t *story) string {
	return x.command("reconcile") + " --mode correct --instance " + t.id
}

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func minutes(d time.Duration) string { return fmt.Sprintf("%.0f minutes", d.Minutes()) }
