package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/fleetpage"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/report"
)

// ReportOptions say of which deployment a report is written, and where.
type ReportOptions struct {
	Of   deployed.Choice
	File string // "-" for the standard output
	// NoDrift leaves the comparison out.
	NoDrift bool
	// Version is that of the command.
	Version string
}

// ledgerAnswer is the function's answer. The cursor is unread, as in answer.
type ledgerAnswer struct {
	report.Answer
	Cursor json.RawMessage `json:"cursor,omitempty"`
}

// Report has the function read the ledger and compare the fleet, and writes a page. It returns the exit status: 0 if the page has all of it,
// 1 if the page was written and says what is not in it, 2 with an error if no page was written.
func Report(ctx context.Context, o ReportOptions, to Streams) (int, error) {
	if o.File == "" {
		return broken, errors.New("name the file of the page: --output fleet.html")
	}
	found, err := o.Of.Find(ctx)
	if err != nil {
		return broken, err
	}
	a := asking{function: newFunction(found), Streams: to}
	s := fleetpage.Source{Head: fleetpage.Head{Function: a.name, Command: o.Version}}
	if err := a.readLedger(ctx, &s); err != nil {
		return broken, err
	}
	if o.NoDrift {
		s.Omitted = append(s.Omitted, fleetpage.Omitted{What: "the comparison with EC2 and Vault", Why: "it was left out by --no-drift: no drift is shown"})
	} else {
		a.addComparison(ctx, &s)
	}
	if ctx.Err() != nil {
		return broken, fmt.Errorf("no page was written: %w", ctx.Err())
	}
	if err := writePage(o.File, fleetpage.New(s), to.Out); err != nil {
		return broken, err
	}
	where := o.File
	if where == "-" {
		where = "the page"
	}
	fmt.Fprintf(to.Progress, "report: %s has %s and %s\n", text.Printable(where), count(len(s.Instances), "record"), count(len(s.Claims), "claim"))
	for _, omitted := range s.Omitted {
		fmt.Fprintf(to.Progress, "report: not in it: %s: %s\n", text.Printable(omitted.What), text.Lines(omitted.Why))
	}
	if len(s.Omitted) > 0 {
		return undone, nil
	}
	return done, nil
}

// readLedger invokes the function until the ledger is read. If a later invocation fails, the source has what was read before, and says so.
func (a asking) readLedger(ctx context.Context, s *fleetpage.Source) error {
	parts := 0
	err := a.untilWhole(ctx, input{Input: reconcile.Input{Mode: reconcile.Report}}, a.Progress, func(n int, raw []byte) (json.RawMessage, string, error) {
		var part ledgerAnswer
		if err := json.Unmarshal(raw, &part); err != nil {
			return nil, "", fmt.Errorf("reading the answer of function %s: %w", a.name, err)
		}
		parts = n
		addPart(s, part.Answer, n)
		return part.Cursor, fmt.Sprintf("report: %s and %s read so far; continuing", count(len(s.Instances), "record"), count(len(s.Claims), "claim")), nil
	})
	switch {
	case err != nil && parts == 0:
		return err
	case err != nil:
		s.Omitted = append(s.Omitted, fleetpage.Omitted{What: "a part of the ledger: records and claims are missing", Why: err.Error()})
	}
	return nil
}

// addPart adds the answer of the nth invocation.
func addPart(s *fleetpage.Source, a report.Answer, n int) {
	h := &s.Head
	if n == 1 {
		h.Deployment, h.Namespace, h.Account, h.Region = a.Deployment, a.Namespace, a.Account, a.Region
		h.Program, h.Profiles, h.TornDown, h.From = a.Program, a.Profiles, a.TornDown, a.From
	}
	h.To = a.To
	if a.RequestID != "" {
		h.Requests = append(h.Requests, a.RequestID)
	}
	s.Instances = append(s.Instances, a.Instances...)
	s.Claims = append(s.Claims, a.Claims...)
	for _, u := range a.Unread {
		s.Omitted = append(s.Omitted, fleetpage.Omitted{What: u.What, Why: u.Error})
	}
}

// addComparison has the function compare the fleet. A comparison that fails is one more thing that is not in the report.
func (a asking) addComparison(ctx context.Context, s *fleetpage.Source) {
	fmt.Fprintln(a.Progress, "report: comparing the fleet with EC2 and Vault")
	at := time.Now().UTC()
	whole, _, err := a.reconcile(ctx, input{Input: reconcile.Input{Mode: reconcile.Detect}}, a.Progress)
	if err != nil {
		s.Omitted = append(s.Omitted, fleetpage.Omitted{What: "the comparison with EC2 and Vault: no drift is shown", Why: err.Error()})
		return
	}
	s.Comparison = &fleetpage.Comparison{At: at, DurationMs: whole.DurationMs, Scanned: whole.Scanned, Summary: whole.Summary, Drift: whole.Drift}
	if whole.Truncated {
		s.Omitted = append(s.Omitted, fleetpage.Omitted{
			What: fmt.Sprintf("drift beyond the first %d rows", len(whole.Drift)), Why: "an answer has no more room: the log of function " + a.name + " has all rows",
		})
	}
	if whole.Blocked {
		s.Omitted = append(s.Omitted, fleetpage.Omitted{What: "a complete comparison", Why: whole.BlockedReason})
	}
	if n := whole.Summary.Failed; n > 0 {
		s.Omitted = append(s.Omitted, fleetpage.Omitted{What: "the comparison of " + count(n, "instance"), Why: "it failed: the rows of the drift have the errors"})
	}
	for _, p := range whole.Places {
		s.Omitted = append(s.Omitted, fleetpage.Omitted{What: whereOf(p), Why: p.Error})
	}
}

// writePage writes the page to a file that only its owner may read, or to the standard output. An existing file is replaced as a whole.
func writePage(file string, d fleetpage.Data, out io.Writer) error {
	if file == "-" {
		return fleetpage.Write(out, d)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".vault-ec2-report-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone once it is renamed
	err = fleetpage.Write(f, d)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("writing the page %s: %w", file, err)
	}
	return nil
}
