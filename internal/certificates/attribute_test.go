package certificates

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const (
	mount   = "alice/pki/k8s"
	a, b, c = "i-0123456789abcdefa", "i-0123456789abcdefb", "i-0123456789abcdefc"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func named(text string) ledger.Name { return ledger.Name{Under: mount, Text: text} }

// record returns the record of an instance that was made at a time and holds names.
func record(id string, made time.Time, names ...ledger.Name) ledger.Record {
	return ledger.Record{InstanceID: id, State: ledger.Active, CreatedAt: made, CertificateBackdated: 30, Claims: names, FQDN: "x", Objects: []ledger.Object{{Path: "x"}}}
}

// ended returns a tombstone of an instance that released names.
func ended(id string, made, at time.Time, names ...ledger.Name) ledger.Record {
	r := ledger.Record{InstanceID: id, State: ledger.Deleted, CreatedAt: made, CertificateBackdated: 30, DeletedAt: &at}
	for _, n := range names {
		r.Released = append(r.Released, ledger.ReleasedName{Name: n, At: at})
	}
	return r
}

// sharing returns the record of an instance whose grant lost a name at a time, since instances share it from then on.
func sharing(at time.Time) ledger.Record {
	r := record(a, noon, named("web-0"))
	r.CertificateTTL = 3600
	r.Former = []ledger.FormerName{{Name: named("web-1"), Until: at.Add(time.Hour)}}
	return r
}

// backdated returns a record with the longest backdating of its certificates.
func backdated(r ledger.Record, by time.Duration) ledger.Record {
	r.CertificateBackdated = int64(by.Seconds())
	return r
}

// certOf returns a certificate whose time begins at one.
func certOf(begin time.Time, cn string, names ...string) *x509.Certificate {
	out := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(24 * time.Hour), Subject: pkix.Name{CommonName: cn}}
	for _, n := range names {
		u, err := url.Parse(n)
		switch ip := net.ParseIP(n); {
		case ip != nil:
			out.IPAddresses = append(out.IPAddresses, ip)
		case err == nil && u.Scheme != "":
			out.URIs = append(out.URIs, u)
		default:
			out.DNSNames = append(out.DNSNames, n)
		}
	}
	return out
}

func TestAttribute_FindsTheHolderOfThatTime(t *testing.T) {
	web, address, other := named("web-1"), named("10.0.0.5@vpc-1"), named("web-2")
	hour := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Hour) }
	for name, row := range map[string]struct {
		records []ledger.Record
		cert    *x509.Certificate
		want    string
		verdict verdict
	}{
		"the only holder":                      {[]ledger.Record{record(a, noon, web)}, certOf(hour(1), "web-1"), a, sure},
		"another case":                         {[]ledger.Record{record(a, noon, web)}, certOf(hour(1), "", "WEB-1"), a, sure},
		"an address without its VPC":           {[]ledger.Record{record(a, noon, address)}, certOf(hour(1), "", "10.0.0.5"), a, sure},
		"a URI":                                {[]ledger.Record{record(a, noon, named("spiffe://alice/a"))}, certOf(hour(1), "", "spiffe://alice/a"), a, sure},
		"a shared name beside its own":         {[]ledger.Record{record(a, noon, web)}, certOf(hour(1), "web-1", "api", "127.0.0.1"), a, sure},
		"shared names alone":                   {[]ledger.Record{record(a, noon, web)}, certOf(hour(1), "api"), "", unknown},
		"no name":                              {[]ledger.Record{record(a, noon, web)}, certOf(hour(1), ""), "", unknown},
		"a name that became shared":            {[]ledger.Record{sharing(hour(2)), record(b, noon, other)}, certOf(hour(3), "web-1"), "", unknown},
		"the same beside its own":              {[]ledger.Record{sharing(hour(2)), record(b, noon, other)}, certOf(hour(3), "web-1", "web-2"), b, sure},
		"before it became shared":              {[]ledger.Record{sharing(hour(2)), record(b, noon, other)}, certOf(hour(1), "web-1"), a, sure},
		"backdated by more than is known":      {[]ledger.Record{ended(a, noon, hour(2), web), backdated(record(b, hour(2).Add(30*time.Minute), web), time.Hour)}, certOf(hour(2).Add(-10*time.Minute), "web-1"), b, doubtful},
		"backdated by an unknown time":         {[]ledger.Record{ended(a, noon, hour(2), web), backdated(record(b, hour(5), web), 0)}, certOf(hour(1), "web-1"), b, doubtful},
		"names of two instances":               {[]ledger.Record{record(a, noon, web), record(b, noon, other)}, certOf(hour(1), "web-1", "web-2"), "", unknown},
		"one address in two networks":          {[]ledger.Record{record(a, noon, web, address), record(b, noon, other, named("10.0.0.5@vpc-2"))}, certOf(hour(1), "web-1", "10.0.0.5"), a, sure},
		"only that address":                    {[]ledger.Record{record(a, noon, address), record(b, hour(1), named("10.0.0.5@vpc-2"))}, certOf(hour(2), "", "10.0.0.5"), "", unknown},
		"another mount":                        {[]ledger.Record{record(a, noon, ledger.Name{Under: "alice/pki/etcd", Text: "web-1"})}, certOf(hour(1), "web-1"), "", unknown},
		"a former holder":                      {[]ledger.Record{ended(a, noon, hour(2), web), record(b, hour(3), web)}, certOf(hour(1), "web-1"), a, sure},
		"its successor":                        {[]ledger.Record{ended(a, noon, hour(2), web), record(b, hour(3), web)}, certOf(hour(4), "web-1"), b, sure},
		"when the name passed":                 {[]ledger.Record{ended(a, noon, hour(2), web), record(b, hour(2).Add(10*time.Second), web)}, certOf(hour(2).Add(-5*time.Second), "web-1"), b, doubtful},
		"an end without a successor":           {[]ledger.Record{ended(a, noon, hour(2), web)}, certOf(hour(2).Add(-5*time.Second), "web-1"), a, sure},
		"after the last holder":                {[]ledger.Record{ended(a, noon, hour(2), web)}, certOf(hour(3), "web-1"), "", unknown},
		"before the ledger knew a holder":      {[]ledger.Record{record(a, hour(2), web)}, certOf(noon, "web-1"), a, doubtful},
		"before two that the ledger knows":     {[]ledger.Record{ended(a, hour(2), hour(3), web), record(b, hour(4), web)}, certOf(noon, "web-1"), b, doubtful},
		"a backdated one right after an end":   {[]ledger.Record{ended(a, noon, hour(2), web), record(b, hour(2).Add(time.Minute), web)}, certOf(hour(1).Add(55*time.Minute), "web-1"), b, doubtful},
		"three in a row":                       {[]ledger.Record{ended(a, noon, hour(1), web), ended(b, hour(2), hour(3), web), record(c, hour(4), web)}, certOf(hour(2).Add(30*time.Minute), "web-1"), b, sure},
		"a name that is held past its grant":   {[]ledger.Record{{InstanceID: a, State: ledger.Active, CreatedAt: noon, CertificateTTL: 3600, CertificateBackdated: 30, Former: []ledger.FormerName{{Name: web, Until: hour(9)}}}}, certOf(hour(1), "web-1"), a, sure},
		"one given up by a running instance":   {[]ledger.Record{{InstanceID: a, State: ledger.Active, CreatedAt: noon, CertificateBackdated: 30, Released: []ledger.ReleasedName{{Name: web, At: hour(2)}}}}, certOf(hour(1), "web-1"), a, sure},
		"a longer name that begins like one":   {[]ledger.Record{record(a, noon, web)}, certOf(hour(1), "web-10"), "", unknown},
		"held and given up by two, one common": {[]ledger.Record{ended(a, noon, hour(2), web, address), record(b, hour(3), web)}, certOf(hour(1), "web-1", "10.0.0.5"), a, sure},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory()
			for _, r := range row.records {
				h.add(r)
			}
			got, v := h.attribute(mount, row.cert)
			if got != row.want || v != row.verdict {
				t.Errorf("want %q (%d), got %q (%d): its certificate would be revoked with the wrong instance, or with none", row.want, row.verdict, got, v)
			}
		})
	}
}
