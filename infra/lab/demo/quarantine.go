package demo

import (
	"context"
	"fmt"
	"strings"
)

// quarantine cuts a running worker off as an operator does who does not trust it, and then releases it.
func (d *demo) quarantine(ctx context.Context) error {
	d.chapter("A running worker is no longer trusted: quarantine cuts it off until its release")
	i := d.other()
	old := d.sessions[i.ID]
	if _, err := old.Client.Auth().Token().LookupSelfWithContext(ctx); err != nil {
		d.expect(false, "its token works until then", lastLine(err))
	}
	seen, err := d.order(ctx, "quarantine", i.ID, "unknown login at 03:04, ticket 4711")
	if err != nil {
		return err
	}
	d.expect(strings.Contains(seen, i.ID+"  quarantined  ") && strings.Contains(seen, "ticket 4711") && strings.Contains(seen, "next: "),
		"the answer has the time of the cut, the reason and the next step", "")
	_, err = old.Client.Auth().Token().LookupSelfWithContext(ctx)
	d.refused(err, "its live token is refused at once", "permission denied")
	_, err = d.world.Fleet.Login(ctx, d.world.AuthMount, i, old.Nonce)
	d.refused(err, "and it cannot log in again", "")

	if err := d.started(ctx, i); err != nil {
		return err
	}
	d.say("It runs on, and its running event comes again. Then: vault-ec2 reconcile --mode correct")
	if seen, err = d.ask(ctx, "reconcile", "--mode", "correct"); err != nil {
		return err
	}
	d.show(seen)
	d.expect(strings.Contains(lineWith(seen, i.ID), "in quarantine since "), "reconcile shows the quarantine", "")
	left, err := d.world.ObjectsOf(ctx, i.ID)
	if err != nil {
		return err
	}
	d.expect(len(left) == 0, "neither the event nor reconcile grants it anything", strings.Join(left, ", "))

	if seen, err = d.order(ctx, "release", i.ID, "false alarm"); err != nil {
		return err
	}
	d.expect(strings.Contains(seen, i.ID+"  released  "), "it has its grant again", "")
	fresh, err := d.world.Fleet.Login(ctx, d.world.AuthMount, i, "")
	if err != nil {
		d.expect(false, "a fresh login works", lastLine(err))
		return fmt.Errorf("the demo needs the login: %w", err)
	}
	d.sessions[i.ID] = fresh
	d.expect(true, "a fresh login works", "policies "+strings.Join(fresh.Auth.Policies, ", "))
	_, err = old.Client.Auth().Token().LookupSelfWithContext(ctx)
	d.refused(err, "the old token stays refused", "permission denied")
	return nil
}

// order prints and runs a command that puts an instance into quarantine, or releases it. It returns the command's output.
func (d *demo) order(ctx context.Context, command, id, reason string) (string, error) {
	d.say("vault-ec2 %s %s --reason %q", command, id, reason)
	seen, err := d.ask(ctx, command, id, "--reason", reason)
	if err != nil {
		return "", err
	}
	d.show(seen)
	return seen, nil
}
