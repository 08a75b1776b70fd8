package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Vault holds the certificates.
type Vault interface {
	RevokingVault
	List(ctx context.Context, path string) ([]string, error)
	Read(ctx context.Context, path string) (map[string]any, error)
}

// Ledger has the instances and the owners of certificates.
type Ledger interface {
	Store
	Scan(ctx context.Context, v ledger.Visitor) error
	// BeginSweep reports whether no other run reads the certificates; EndSweep lets the next one begin.
	BeginSweep(ctx context.Context, run string, lasts time.Duration) (bool, error)
	EndSweep(ctx context.Context, run string) error
}

// Sweeper finds and revokes the certificates of ended instances. It keeps no state and is safe for concurrent use.
type Sweeper struct {
	Deployment string
	Namespace  string // of Vault; empty for the root one
	Profiles   *grant.Set
	Vault      Vault
	Ledger     Ledger
	// NewRun returns the name of a run; never the same name twice.
	NewRun func() string
	Now    func() time.Time
}

const (
	// sweepTime bounds one run: reconcile's other work waits for a free invocation. A run that is not done goes on in another.
	sweepTime = 5 * time.Minute
	// reserve is the time before a run's end in which no certificates are read: what was read is written, and revoked.
	reserve = 60 * time.Second
	// lastReserve is the time before the deadline in which no revocation is begun.
	lastReserve = 20 * time.Second
	// perPart is the number of certificates that are read before their owners are written.
	perPart = 1000
	// maxEnded bounds the rows of an answer.
	maxEnded = 1000
)

// sweep is one run.
type sweep struct {
	*Sweeper
	history *history
	// known are the certificates that the ledger has, by mount and serial number.
	known map[string]map[string]bool
	// due are the instances with certificates to revoke: those without a grant, and those without a record.
	due map[string]bool

	mu     sync.Mutex
	answer Answer
}

func (s *Sweeper) begin() *sweep {
	return &sweep{
		Sweeper: s, history: newHistory(), known: map[string]map[string]bool{}, due: map[string]bool{},
		answer: Answer{Mode: "certificates", Deployment: s.Deployment, At: s.Now().UTC(), Mounts: []Mount{}, Ended: []Ended{}, Unread: []fault.Unread{}, Complete: true},
	}
}

// Sweep reads the certificates that are new, records their owners, and revokes those of ended instances. It returns no error: what
// could not be done is in the answer, and the next run does it.
func (s *Sweeper) Sweep(ctx context.Context) Answer {
	w := s.begin()
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	run := s.NewRun()
	isAlone, err := s.Ledger.BeginSweep(ctx, run, sweepTime+time.Minute)
	if w.unread("whether another run is under way", err); err != nil || !isAlone {
		w.answer.Complete, w.answer.Busy = false, err == nil
		return w.answer
	}
	defer func() { _ = s.Ledger.EndSweep(context.WithoutCancel(ctx), run) }() // otherwise the next run waits for a while
	// The lists come first: an instance has its record before Vault issues to it.
	stored := map[string][]string{}
	for _, mount := range s.Profiles.PKIMounts() {
		names, err := s.Vault.List(ctx, grant.StoredCertificates(mount))
		if w.unread("the certificates of "+mount, err); err == nil {
			stored[mount] = names
		}
	}
	if err := s.Ledger.Scan(ctx, ledger.Visitor{Record: w.history.add, Claim: func(ledger.Name, ledger.Claim) {}, Certificates: w.visit}); err != nil {
		w.unread("the ledger", err) // without all of it, a certificate could be another instance's
		w.answer.Complete = false
		return w.answer
	}
	maps.DeleteFunc(w.due, func(id string, _ bool) bool {
		hasEnded, isKnown := w.history.ended[id]
		return isKnown && !hasEnded
	})
	w.revokeDue(ctx)
	for _, mount := range slices.Sorted(maps.Keys(stored)) {
		w.sweepMount(ctx, mount, stored[mount])
	}
	w.nameOwnersWithoutRecord()
	w.answer.Complete = w.answer.Complete && len(w.answer.Unread) == 0
	return w.answer
}

// nameOwnersWithoutRecord adds a row for each owner of valid certificates without a record. Its tombstone expired, or the record was lost:
// whether the instance runs is not known, so its certificates are left.
func (w *sweep) nameOwnersWithoutRecord() {
	for _, id := range slices.Sorted(maps.Keys(w.due)) {
		if _, isKnown := w.history.ended[id]; !isKnown {
			w.answer.Complete = false
			w.addEnded(Ended{InstanceID: id, Error: "the ledger has valid certificates of this instance, and no record: revoke them by hand if it has ended (vault list and vault write on the PKI mount), or wait until they end"})
		}
	}
}

// addEnded adds a row, if there is room.
func (w *sweep) addEnded(row Ended) {
	if len(w.answer.Ended) < maxEnded {
		w.answer.Ended = append(w.answer.Ended, row)
	}
}

// visit remembers the certificates of an owner.
func (w *sweep) visit(owner string, c ledger.Certificates) {
	isSettled := strings.HasPrefix(owner, settledPrefix)
	for _, one := range c.List {
		isValid := !one.Revoked && one.Until.After(w.answer.At)
		// What was no instance's may have been read in the moment in which its name passed on: it is judged again once a day.
		if isSettled && isValid && int(one.Serial[0])%24 == w.answer.At.Hour() {
			continue
		}
		if w.known[one.Mount] == nil {
			w.known[one.Mount] = map[string]bool{}
		}
		w.known[one.Mount][one.Serial] = true
		if isValid && !isSettled {
			w.due[owner] = true
		}
	}
}

// unread adds a part that could not be read or written.
func (w *sweep) unread(what string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	isNoted := slices.ContainsFunc(w.answer.Unread, func(u fault.Unread) bool { return u.What == what })
	if err != nil && !isNoted {
		w.answer.Unread = append(w.answer.Unread, fault.Unread{What: what, Error: err.Error()})
	}
}

// hasTime reports whether there is time to read more.
func hasTime(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() == nil && (!ok || time.Until(deadline) > reserve)
}

// timeLeft returns the time in which certificates may be revoked. isBounded is false for an invocation without a deadline.
func timeLeft(ctx context.Context) (left time.Duration, isBounded bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0, false
	}
	return time.Until(deadline) - lastReserve, true
}

// mountSweep is the part of a run on one mount.
type mountSweep struct {
	*sweep
	Mount
	listed map[string]bool // the serial numbers that the mount stores
}

func (w *sweep) sweepMount(ctx context.Context, mount string, names []string) {
	m := &mountSweep{sweep: w, Mount: Mount{Mount: mount, Stored: len(names)}, listed: make(map[string]bool, len(names))}
	var fresh []string
	for _, name := range names {
		raw, ok := parseSerial(name)
		if m.listed[raw] = ok; ok && !w.known[mount][raw] {
			fresh = append(fresh, raw)
		}
	}
	for part := range slices.Chunk(fresh, perPart) {
		if !hasTime(ctx) {
			m.Left += len(part)
			w.answer.Complete = false
			continue
		}
		m.record(ctx, m.readAll(ctx, part))
		w.revokeDue(ctx)
	}
	w.answer.Complete = w.answer.Complete && m.Forgotten == 0
	w.answer.Mounts = append(w.answer.Mounts, m.Mount)
}

// readAll reads certificates and returns them by their owners.
func (m *mountSweep) readAll(ctx context.Context, serials []string) map[string][]ledger.Certificate {
	owned := map[string][]ledger.Certificate{}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, serial := range serials {
		group.Go(func() error {
			fields, err := m.Vault.Read(ctx, grant.StoredCertificatePath(m.Mount.Mount, Serial(serial)))
			if err != nil {
				m.unread("certificates of "+m.Mount.Mount, err)
				return nil
			}
			if fields == nil { // it was tidied since it was listed
				return nil
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			owner, c := m.own(serial, fields)
			owned[owner] = append(owned[owner], c)
			return nil
		})
	}
	_ = group.Wait() // the errors are in the answer
	return owned
}

// own returns the owner of a stored certificate, as Vault shows it, and counts it.
func (m *mountSweep) own(serial string, fields map[string]any) (owner string, c ledger.Certificate) {
	m.Read++
	c = ledger.Certificate{Mount: m.Mount.Mount, Serial: serial, Revoked: true}
	settled := m.settledOwner(serial)
	cert, err := parse(fields)
	if err != nil {
		m.Unknown++
		return settled, c
	}
	c.Until = cert.NotAfter
	isRevoked := grant.SecondsOf(fields["revocation_time"]) != 0
	if isRevoked || cert.IsCA || !cert.NotAfter.After(m.answer.At) {
		m.Over++
		return settled, c
	}
	c.Revoked = false
	instance, v := m.history.attribute(m.Mount.Mount, cert)
	switch v {
	case unknown:
		m.Unknown++
		return settled, c
	case doubtful:
		m.Doubtful++
	case sure:
		m.Attributed++
	}
	if m.history.ended[instance] {
		m.due[instance] = true
	}
	return instance, c
}

// settledPrefix begins the owner of the certificates of a mount that are never revoked.
const settledPrefix = "@"

// perSettled is the number of certificates for which a mount has one item of settled ones: fewer than an item takes, since they are spread
// by their serial numbers.
const perSettled = ledger.MaxCertificates / 2

// settledOwner returns the owner of a settled certificate.
func (m *mountSweep) settledOwner(serial string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(serial))
	return fmt.Sprintf("%s%s#%d", settledPrefix, m.Mount.Mount, int(h.Sum32())%(m.Stored/perSettled+1))
}

// record writes the owners of certificates.
func (m *mountSweep) record(ctx context.Context, owned map[string][]ledger.Certificate) {
	var group errgroup.Group
	group.SetLimit(atOnce)
	for owner, more := range owned {
		group.Go(func() error {
			isSettled := owner[:1] == settledPrefix
			forgotten := 0
			err := update(ctx, m.Ledger, owner, isSettled, func(list []ledger.Certificate) []ledger.Certificate {
				list, forgotten = withinBounds(m.pruned(list, isSettled), more)
				return list
			})
			m.unread("the owners of certificates of "+m.Mount.Mount, err)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.Forgotten += forgotten
			return nil
		})
	}
	_ = group.Wait() // the errors are in the answer
}

// pruned returns a list without the certificates of the mount that need not be remembered: the mount does not store them any more, and
// they are settled or have ended.
func (m *mountSweep) pruned(list []ledger.Certificate, isSettled bool) []ledger.Certificate {
	return slices.DeleteFunc(slices.Clone(list), func(c ledger.Certificate) bool {
		return c.Mount == m.Mount.Mount && !m.listed[c.Serial] && (isSettled || c.Until.Before(m.answer.At))
	})
}

// withinBounds returns a list with more certificates, as many as an item takes. Revoked ones make room first: read again, they are
// settled.
func withinBounds(list, more []ledger.Certificate) (out []ledger.Certificate, forgotten int) {
	out = merge(list, more)
	if len(out) > ledger.MaxCertificates {
		before := len(out)
		kept := slices.DeleteFunc(slices.Clone(out), func(c ledger.Certificate) bool { return c.Revoked })
		if len(kept) > 0 {
			out = kept
		}
		out = out[:min(len(out), ledger.MaxCertificates)]
		forgotten = before - len(out)
	}
	return out, forgotten
}

// revokeDue revokes the certificates of ended instances that are known to have some left.
func (w *sweep) revokeDue(ctx context.Context) {
	for _, id := range slices.Sorted(maps.Keys(w.due)) {
		if !w.history.ended[id] {
			continue
		}
		left, isBounded := timeLeft(ctx)
		if isBounded && left <= 0 {
			w.answer.Complete = false
			w.answer.Waiting++
			continue
		}
		delete(w.due, id)
		row := Ended{InstanceID: id}
		done, err := Revoker{Vault: w.Vault, Store: w.Ledger, Now: w.Now, Limit: left}.revoke(ctx, id)
		row.Revoked, row.NotStored = done.Certificates, done.NotStored
		if err != nil {
			row.Error = err.Error()
			w.answer.Complete = false
		}
		if errors.Is(err, ErrLeft) {
			w.answer.Waiting++
		}
		w.answer.Revoked += row.Revoked
		w.answer.NotStored += row.NotStored
		if hasNews := row != (Ended{InstanceID: id}); hasNews {
			w.addEnded(row)
		}
	}
}

// parse returns the certificate in Vault's answer.
func parse(fields map[string]any) (*x509.Certificate, error) {
	text, _ := fields["certificate"].(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("it has no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
