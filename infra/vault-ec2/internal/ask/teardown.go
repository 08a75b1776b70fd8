package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// sweeps is the maximum number of runs of one teardown; the last run must find nothing.
const sweeps = 4

// tearDown invokes the function until it finds nothing more that the deployment made, and returns the exit status. Without
// a confirmed name it asks for one.
func (a asking) tearDown(ctx context.Context) (int, error) {
	if a.input.Confirm == "" {
		name, err := a.typed("This removes the Vault access of every instance of the deployment, running ones included,\n" +
			"and nothing is granted afterwards. Type the deployment's name (the stack's) to continue: ")
		if err != nil {
			return broken, err
		}
		if a.input.Confirm = name; name == "" {
			return broken, errors.New("no name was typed: nothing was removed")
		}
	}
	removed := 0
	for range sweeps {
		swept, raw, err := a.reconcile(ctx, a.input, a.Progress)
		if err != nil {
			return broken, err
		}
		removed += swept.Summary.Corrected
		if err := a.print(raw, func() error { return printTeardown(a.Out, swept) }); err != nil {
			return broken, err
		}
		switch {
		case swept.Blocked || swept.Summary.Failed > 0 || swept.Unsettled > 0:
			return undone, nil
		case leavesMisnamed(swept):
			if !a.json {
				fmt.Fprintf(a.Out, "\n%s removed; delete the objects listed without an instance by hand\n", count(removed, "instance"))
			}
			return undone, nil
		case swept.Summary.Corrected == 0:
			if !a.json {
				left := "nothing of the deployment is left"
				if swept.RetainedCount > 0 {
					left += " but what is retained: delete it by hand, where it is not needed"
				}
				fmt.Fprintf(a.Out, "\n%s removed; %s\n", count(removed, "instance"), left)
			}
			return done, nil
		}
	}
	return undone, errors.New("each sweep found something to remove: does another function still grant?")
}

// leavesMisnamed reports whether a sweep removed nothing and listed objects that belong to no instance.
func leavesMisnamed(a answer) bool {
	return a.Summary.Corrected == 0 && slices.ContainsFunc(a.Drift, func(d reconcile.Drift) bool { return d.InstanceID == "" })
}

// printTeardown prints the counts of one sweep, and a row for each failed removal or conflict.
func printTeardown(out io.Writer, a answer) error {
	var b strings.Builder
	var failed []reconcile.Drift
	for _, d := range a.Drift {
		if d.Error != "" {
			failed = append(failed, d)
		}
	}
	fmt.Fprintf(&b, "teardown%s: %s; removed %d, failed %d, conflicting %d\n", inNamespace(a),
		count(a.Scanned.Records, "ledger record"), a.Summary.Corrected, a.Summary.Failed, a.Summary.Conflicting)
	if len(failed) > 0 {
		b.WriteString("\n")
		table(&b, failed)
	}
	if a.Summary.Failed > 0 {
		b.WriteString("\nfailed removals are not complete: fix the cause and run it again\n")
	}
	if a.Unsettled > 0 {
		fmt.Fprintf(&b, "%s removed while a login may have been in flight: the function cuts again in 100 s; run it again after that\n", count(a.Unsettled, "instance"))
	}
	for _, r := range a.Retained {
		fmt.Fprintf(&b, "retained: %s, as the profile of %s says\n", text.Printable(r.Path), text.Printable(r.InstanceID))
	}
	if more := a.RetainedCount - len(a.Retained); more > 0 {
		fmt.Fprintf(&b, "retained: %s more\n", count(more, "object"))
	}
	places(&b, a.Places)
	if a.Blocked {
		indented(&b, "BLOCKED: ", a.BlockedReason)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
