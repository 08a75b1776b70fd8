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
	// leastBackdated is the least time by which a certificate counts as backdated.
	leastBackdated = 10 * time.Minute
	// unknownBackdated is the time for a record that does not have it.
	unknownBackdated = 24 * time.Hour
)

// hold is a name in the hands of one instance.
type hold struct {
	instance    string
	from, until time.Time // a zero until: it is held now
	backdated   time.Duration
}

// endsAfter reports whether the hold ends after a time.
func (h hold) endsAfter(at time.Time) bool { return h.until.IsZero() || !at.After(h.until) }

// covers reports whether a certificate that begins at a time may be of the hold.
func (h hold) covers(begin time.Time) bool {
	return !begin.Add(h.backdated+skew).Before(h.from) && h.endsAfter(begin.Add(-skew))
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
	one := hold{instance: r.InstanceID, from: r.CreatedAt, backdated: max(time.Duration(r.CertificateBackdated)*time.Second, leastBackdated)}
	if r.CertificateBackdated == 0 {
		one.backdated = unknownBackdated
	}
	for _, n := range r.Held() {
		h.hold(n, one)
	}
	for _, n := range r.Former {
		if one.until = lostAt(r, n); !one.until.IsZero() {
			h.hold(n.Name, one)
		}
	}
	for _, n := range r.Released {
		one.until = n.At
		h.hold(n.Name, one)
	}
}

// lostAt returns when an instance's grant lost a former name: the name is held longer, while a certificate with it can be good, but no
// certificate is issued with it. It is zero if the record does not have it.
func lostAt(r ledger.Record, n ledger.FormerName) time.Time {
	switch {
	case !n.Until.IsZero() && r.CertificateTTL > 0:
		return n.Until.Add(-time.Duration(r.CertificateTTL) * time.Second)
	case r.DeletedAt != nil:
		return *r.DeletedAt
	}
	return time.Time{}
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
func (h *history) attribute(mount string, cert *x509.Certificate) (instance string, v verdict) {
	candidates := h.holdersOfAll(mount, cert, func(one hold) bool { return one.covers(cert.NotBefore) })
	v = sure
	if len(candidates) == 0 {
		candidates, v = h.holdersOfAll(mount, cert, func(one hold) bool { return one.endsAfter(cert.NotBefore.Add(-skew)) }), doubtful
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
		of, decides := map[string]hold{}, false
		for _, one := range holds {
			_, isOfAll := candidates[one.instance]
			if !matches(one) {
				continue
			}
			decides = true
			if candidates == nil || isOfAll {
				of[one.instance] = latest(of[one.instance], one)
			}
		}
		if decides { // otherwise it was held by one instance at another time, and is shared now
			candidates = of
		}
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
