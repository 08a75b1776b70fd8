package tryout

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// checkCertificate fails unless an instance got a certificate for its own name and address, and for no others.
func checkCertificate(s seen) error {
	if s.CertificateRefusal != "" {
		return fmt.Errorf("no certificate for %s, %v: %s", s.Name, s.Addresses, s.CertificateRefusal)
	}
	block, _ := pem.Decode([]byte(s.Certificate))
	if block == nil {
		return errors.New("its certificate is not PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("its certificate: %w", err)
	}
	if c.Subject.CommonName != s.Name || !slices.Equal(c.DNSNames, []string{s.Name}) || len(c.IPAddresses) != 1 || c.IPAddresses[0].String() != s.Addresses[0] {
		return fmt.Errorf("its certificate is for %q, %q, %v, want only %s and %s", c.Subject.CommonName, c.DNSNames, c.IPAddresses, s.Name, s.Addresses[0])
	}
	if len(c.URIs)+len(c.EmailAddresses) > 0 {
		return fmt.Errorf("its certificate has URIs %v and email addresses %v, want none", c.URIs, c.EmailAddresses)
	}
	return nil
}

// attackRow is one attack as the report shows it.
type attackRow struct {
	Name           string
	Tried, Refused int
	Answer         string   // of one refusal
	notRefused     []string // instances with the answer
}

// mostShown is the most instances that a line names.
const mostShown = 3

// isRefused reports whether an answer of Vault refuses an attack. A request must fail by Vault's policies: any other fault could be the
// request's own. A login fails with 400, with 403, or with 500 if the document's signature does not fit. No answer (0), too many requests
// and an unavailable Vault decide nothing.
func isRefused(kind string, status int) bool {
	if kind == "login" {
		return status == http.StatusBadRequest || status == http.StatusForbidden || status == http.StatusInternalServerError
	}
	return status == http.StatusForbidden
}

// attackRows counts each attack over all instances. An attack without an answer is not refused.
func attackRows(hosts []*host) []attackRow {
	var rows []attackRow
	at := map[string]int{}
	for _, h := range hosts {
		for _, a := range h.seen.Attacks {
			n, ok := at[a.Name]
			if !ok {
				n = len(rows)
				at[a.Name] = n
				rows = append(rows, attackRow{Name: a.Name})
			}
			r := &rows[n]
			r.Tried++
			if isRefused(a.Kind, a.Status) {
				r.Refused++
				r.Answer = fmt.Sprintf("%d %s", a.Status, a.Errors)
			} else if len(r.notRefused) < mostShown {
				r.notRefused = append(r.notRefused, fmt.Sprintf("%s: %d %s", h.id, a.Status, a.Errors))
			}
		}
	}
	return rows
}

// judgeAttacks adds a line for all attacks, and one for each that was not refused everywhere.
func (t *tryout) judgeAttacks(context.Context) bool {
	rows := attackRows(t.hosts)
	if len(rows) == 0 {
		t.j.skip("Every attack is refused", "no instance reported")
		return false
	}
	tried, refused := 0, 0
	for _, r := range rows {
		tried, refused = tried+r.Tried, refused+r.Refused
		if r.Refused < r.Tried {
			t.j.add(line{Expected: "Refused: " + r.Name, Mark: missed, Seen: fmt.Sprintf("refused to %d of %d instances; not to %s", r.Refused, r.Tried, strings.Join(r.notRefused, "; "))})
		}
	}
	l := line{Expected: fmt.Sprintf("Every attack is refused: %d of them, %d in all", len(rows), tried), Mark: met}
	if refused < tried {
		l.Mark, l.Seen = missed, fmt.Sprintf("%d were refused", refused)
	}
	t.j.add(l)
	return true
}

// raceRow is one instance's way to its first login.
type raceRow struct {
	ID, Kind             string
	SinceLaunch, Waiting float64 // seconds
	Tries                int
	Refusal              string
}

// race returns the first logins after an event, in the order of the launches.
func race(hosts []*host) []raceRow {
	var rows []raceRow
	for _, h := range hosts {
		if h.seen.Granted == 0 || h.kind == silentKind {
			continue
		}
		rows = append(rows, raceRow{
			ID: h.id, Kind: h.kind, Tries: h.seen.Tries, Waiting: h.seen.Waited, Refusal: h.seen.Refusal,
			SinceLaunch: h.seen.Granted - float64(h.launched.UnixMilli())/1000,
		})
	}
	return rows
}
