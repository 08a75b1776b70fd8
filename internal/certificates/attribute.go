package certificates

import (
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const (
	// skew is how far the clocks of Vault and of this program may differ.
	skew = time.Minute
	// leastBackdated is the least time by which a certificate may be backdated. Earlier profiles may have had another
	// not_before_duration than the present ones.
	leastBackdated = 10 * time.Minute
)

// hold is a name in the hands of one instance.
type hold struct {
	instance    string
	from, until time.Time // a zero until: it is held now
}

// endsAfter reports whether the hold ends after a time.
func (h hold) endsAfter(at time.Time) bool { return h.until.IsZero() || !at.After(h.until) }

// covers reports whether a certificate that was issued between two times may be of the hold.
func (h hold) covers(from, to time.Time) bool {
	return !to.Before(h.from) && h.endsAfter(from)
}

// history says which instances held which names, by the ledger.
type history struct {
	holds map[ledger.Name][]hold
	ended map[string]bool // whether an instance has no grant any more, by its ID
}

func newHistory() *history {
	return &history{holds: map[ledger.Name][]hold{}, ended: map[string]bool{}}
}

// add adds the names of a record: those that the instance holds, and those that it gave up.
func (h *history) add(r ledger.Record) {
	h.ended[r.InstanceID] = r.State == ledger.Deleted
	for _, n := range r.Held() {
		h.hold(n, hold{instance: r.InstanceID, from: r.CreatedAt})
	}
	for _, n := range r.Former {
		h.hold(n.Name, hold{instance: r.InstanceID, from: r.CreatedAt, until: n.Until})
	}
	for _, n := range r.Released {
		h.hold(n.Name, hold{instance: r.InstanceID, from: r.CreatedAt, until: n.At})
	}
}

// hold adds a hold. A certificate has an address without its VPC.
func (h *history) hold(n ledger.Name, one hold) {
	n.Text, _, _ = strings.Cut(n.Text, "@vpc-")
	h.holds[n] = append(h.holds[n], one)
}

// verdict says how sure an attribution is.
type verdict int

const (
	unknown  verdict = iota // no instance held all of the certificate's names when it was issued
	doubtful                // several instances may have, or the ledger has later holders alone; the latest is named
	sure
)

// attribute returns the instance to which a mount issued a certificate. The instance held each of the certificate's names that any instance
// claims, at the time of issuance. A name without a claim, which instances share, decides nothing. In doubt it is the latest holder: its
// certificates are the last to be revoked. So is a later holder where the ledger has no earlier one: whatever held the name then has it no
// more.
func (h *history) attribute(mount string, cert *x509.Certificate, backdated time.Duration) (instance string, v verdict) {
	from, to := cert.NotBefore.Add(-skew), cert.NotBefore.Add(max(backdated, leastBackdated)+skew)
	candidates := h.holdersOfAll(mount, cert, func(one hold) bool { return one.covers(from, to) })
	v = sure
	if len(candidates) == 0 {
		candidates, v = h.holdersOfAll(mount, cert, func(one hold) bool { return one.endsAfter(from) }), doubtful
	}
	var best hold
	holdNow := 0
	for _, one := range candidates {
		best = latest(best, one)
		if one.until.IsZero() {
			holdNow++
		}
	}
	if holdNow > 1 { // an address in networks that overlap: the end of one must not revoke what the other uses
		return "", unknown
	}
	switch len(candidates) {
	case 0:
		return "", unknown
	case 1:
		return best.instance, v
	default:
		return best.instance, doubtful
	}
}

// holdersOfAll returns the instances with a matching hold of each of the certificate's names that any instance claims.
func (h *history) holdersOfAll(mount string, cert *x509.Certificate, matches func(hold) bool) map[string]hold {
	var candidates map[string]hold
	for _, text := range namesIn(cert) {
		holds := h.holds[ledger.Name{Under: mount, Text: text}]
		if len(holds) == 0 {
			continue
		}
		of := map[string]hold{}
		for _, one := range holds {
			_, isOfAll := candidates[one.instance]
			if matches(one) && (candidates == nil || isOfAll) {
				of[one.instance] = latest(of[one.instance], one)
			}
		}
		candidates = of
	}
	return candidates
}

// latest returns the hold that ends later; of two that go on, the one that began later.
func latest(a, b hold) hold {
	switch {
	case a.instance == "":
		return b
	case a.until.IsZero() != b.until.IsZero():
		if a.until.IsZero() {
			return a
		}
		return b
	case !a.until.Equal(b.until):
		if a.until.After(b.until) {
			return a
		}
		return b
	case a.from.After(b.from), a.from.Equal(b.from) && a.instance > b.instance:
		return a
	}
	return b
}

// namesIn returns the names, addresses and URIs in a certificate, in the form of a claim, without doubles.
func namesIn(cert *x509.Certificate) []string {
	names := append([]string{cert.Subject.CommonName}, cert.DNSNames...)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	for i := range names {
		names[i] = strings.ToLower(names[i])
	}
	for _, a := range cert.IPAddresses {
		names = append(names, a.String())
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}
