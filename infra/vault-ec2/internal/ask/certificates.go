package ask

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/certificates"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// maxUnread bounds the lines about what was not done.
const maxUnread = 100

// CertificatesOptions say where the certificates come from.
type CertificatesOptions struct {
	Of       deployed.Choice
	AuditLog string // a file of Vault's audit log, or - for the standard input; empty: the PKI mounts
	JSON     bool
}

// Certificates has the function record certificates and revoke those of ended instances, and prints what it did. It returns the exit
// status: 0 if none is left, 1 if some may be, 2 with an error if the command itself failed.
func Certificates(ctx context.Context, o CertificatesOptions, to Streams) (int, error) {
	found, err := o.Of.Find(ctx)
	if err != nil {
		return broken, err
	}
	a := asking{function: newFunction(found), json: o.JSON, Streams: to}
	var whole certificates.Answer
	if o.AuditLog != "" {
		whole, err = a.recordCertificates(ctx, o.AuditLog)
	} else {
		whole, err = a.sweepCertificates(ctx)
	}
	if err != nil {
		return broken, err
	}
	raw, err := json.Marshal(whole)
	if err != nil {
		return broken, fmt.Errorf("writing the answer: %w", err)
	}
	if err := a.print(raw, func() error { return printCertificates(to.Out, whole) }); err != nil {
		return broken, err
	}
	if !whole.Complete {
		return undone, nil
	}
	return done, nil
}

// sweepCertificates invokes the function until each certificate was read, or a run reads none.
func (a asking) sweepCertificates(ctx context.Context) (whole certificates.Answer, err error) {
	for n := 1; ; n++ {
		part, err := a.certificates(ctx, reconcile.Input{Mode: reconcile.Certificates})
		if err != nil {
			return whole, err
		}
		whole = whole.Join(part)
		read, left := 0, 0
		for _, m := range part.Mounts {
			read, left = read+m.Read, left+m.Left
		}
		if !part.GetsOn() {
			return whole, nil
		}
		fmt.Fprintf(a.Progress, "certificates: invocation %d read %d, %d are left; continuing\n", n, read, left)
	}
}

// recordCertificates sends the certificates in an audit log to the function.
func (a asking) recordCertificates(ctx context.Context, file string) (whole certificates.Answer, err error) {
	from := a.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return whole, fmt.Errorf("reading the audit log: %w", err)
		}
		defer func() { _ = f.Close() }()
		from = f
	}
	whole.Complete = true
	err = readAuditLog(from, func(issued []certificates.Issued) error {
		if len(issued) == 0 {
			return nil
		}
		part, err := a.certificates(ctx, reconcile.Input{Mode: reconcile.Certificates, Issued: issued})
		if err != nil {
			return err
		}
		complete, unread := whole.Complete && part.Complete, slices.Concat(whole.Unread, part.Unread)
		unread = unread[:min(len(unread), maxUnread)] // a log may have no end
		whole = whole.Join(part)
		whole.Complete, whole.Unread = complete, unread
		fmt.Fprintf(a.Progress, "certificates: %d recorded, %d revoked so far\n", whole.Recorded, whole.Revoked)
		return nil
	}, func(mount string) {
		isNoted := slices.ContainsFunc(whole.Unread, func(u fault.Unread) bool { return u.What == mount })
		if !isNoted {
			whole.Complete = false
			whole.Unread = append(whole.Unread, fault.Unread{What: mount, Error: hashedSerials(mount)})
			fmt.Fprintf(a.Progress, "certificates: %s: %s\n", mount, hashedSerials(mount))
		}
	})
	return whole, err
}

// hashedSerials says what to do about a mount whose serial numbers are hashed in the audit log.
func hashedSerials(mount string) string {
	return "its serial numbers are hashed: run vault secrets tune -audit-non-hmac-response-keys=serial_number " + mount + "/ (with the keys that it has already), and read the lines from then on"
}

// certificates invokes the function once.
func (a asking) certificates(ctx context.Context, in reconcile.Input) (part certificates.Answer, err error) {
	raw, err := a.invoke(ctx, input{Input: in})
	if err != nil {
		return part, err
	}
	if err := json.Unmarshal(raw, &part); err != nil {
		return part, fmt.Errorf("reading the answer of function %s: %w", a.name, err)
	}
	return part, nil
}

// printCertificates prints what was found on each mount, and the instances whose certificates were revoked.
func printCertificates(out io.Writer, a certificates.Answer) error {
	var b strings.Builder
	if len(a.Mounts) > 0 {
		rows := [][]string{{"STORED", "READ NOW", "OF ONE INSTANCE", "IN DOUBT", "OF NO INSTANCE", "OVER", "LEFT", "MOUNT"}}
		for _, m := range a.Mounts {
			var row []string
			for _, n := range []int{m.Stored, m.Read, m.Attributed, m.Doubtful, m.Unknown, m.Over, m.Left} {
				row = append(row, strconv.Itoa(n))
			}
			rows = append(rows, append(row, m.Mount))
		}
		columns(&b, rows)
		b.WriteString("\n")
	}
	for _, m := range a.Mounts {
		if m.Forgotten > 0 {
			indented(&b, "not remembered: ", fmt.Sprintf("%d certificates of %s, for which the ledger has no room: each run reads them again. An instance has more than %d valid ones, or the mount keeps ended ones: see docs/reconcile.md#certificates-at-the-end",
				m.Forgotten, m.Mount, ledger.MaxCertificates))
		}
	}
	if a.Recorded > 0 {
		fmt.Fprintf(&b, "%d recorded\n", a.Recorded)
	}
	fmt.Fprintf(&b, "%d revoked", a.Revoked)
	if a.NotStored > 0 {
		fmt.Fprintf(&b, ", and %d that their mount does not store are valid until they end", a.NotStored)
	}
	b.WriteString("\n")
	if a.Others > 0 {
		fmt.Fprintf(&b, "%d of the log are of mounts or namespaces of others\n", a.Others)
	}
	if a.Busy {
		b.WriteString("another run is under way: this one did nothing\n")
	}
	if len(a.Ended) > 0 {
		rows := [][]string{{"INSTANCE", "REVOKED", "NOT STORED", "ERROR"}}
		for _, e := range a.Ended {
			rows = append(rows, []string{e.InstanceID, strconv.Itoa(e.Revoked), strconv.Itoa(e.NotStored), orDash(e.Error)})
		}
		b.WriteString("\n")
		columns(&b, rows)
	}
	for _, u := range a.Unread {
		indented(&b, "not done: ", u.What+": "+u.Error)
	}
	if !a.Complete {
		b.WriteString("some certificates of ended instances may be left: run this again, or wait for the next scheduled run\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}
