package report

import (
	"context"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

// Ledger holds the records and claims.
type Ledger interface {
	// ScanFrom visits the records and claims behind a key while more returns true, and returns where to continue.
	ScanFrom(ctx context.Context, key string, v ledger.Visitor, more func() bool) (next string, err error)
	// TornDown returns when the deployment was torn down; nil while grants are made.
	TornDown(ctx context.Context) (*time.Time, error)
}

// Accounts returns the function's own account.
type Accounts interface {
	Account(ctx context.Context) (string, error)
}

// Reader reads the ledger. It keeps no state and is safe for concurrent use.
type Reader struct {
	Deployment string
	Region     string
	Profiles   string // the digest of the active profiles
	Ledger     Ledger
	Accounts   Accounts
	Now        func() time.Time
}

const (
	// reserve is the time before an invocation's deadline in which no page is read: one read can take 15 seconds.
	reserve = 30 * time.Second
	// enough is the size of an answer, as JSON, after which no page is read. Lambda's answer is at most 6 MB, and one more page, of at most
	// 500 items and 1 MB in DynamoDB, has less than 4 MB even if each character of an error takes six.
	// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
	enough = 1_500_000
	// maxError bounds the error of a record in the answer, in bytes.
	maxError = 1000
)

// Read reads the ledger behind a key, as far as the size of an answer and the time of the invocation go. It returns no error: a page that
// could not be read is in the answer, which then is not complete.
func (r *Reader) Read(ctx context.Context, after string) Answer {
	p := part{answer: Answer{
		Mode: "report", Deployment: r.Deployment, Region: r.Region, Program: version.Version(), From: r.Now().UTC(),
		Instances: []Instance{}, Claims: []Claim{}, Unread: []fault.Unread{},
	}}
	if after == "" {
		r.readHead(ctx, &p)
	}
	hasTime := ledger.WhileTime(ctx, reserve)
	more := func() bool { return p.size < enough && hasTime() } // nothing has been read before the first page
	next, err := r.Ledger.ScanFrom(ctx, after, ledger.Visitor{Record: p.addRecord, Claim: p.addClaim}, more)
	if p.addUnread("the ledger's records and claims", err); err == nil {
		p.answer.Next, p.answer.Complete = next, next == ""
	}
	p.answer.To = r.Now().UTC()
	return p.answer
}

// readHead reads what the report says once.
func (r *Reader) readHead(ctx context.Context, p *part) {
	p.answer.Profiles = r.Profiles
	var err error
	p.answer.Account, err = r.Accounts.Account(ctx)
	p.addUnread("the function's own account", err)
	p.answer.TornDown, err = r.Ledger.TornDown(ctx)
	p.addUnread("whether the deployment is torn down", err)
}

// part is the answer of one invocation.
type part struct {
	answer Answer
	size   int // of the instances and claims as JSON
}

func (p *part) addUnread(what string, err error) {
	if err != nil {
		p.answer.Unread = append(p.answer.Unread, fault.Unread{What: what, Error: err.Error()})
	}
}

func (p *part) grow(v any) {
	text, _ := json.Marshal(v) // a struct of texts, numbers and times cannot fail
	p.size += len(text) + 1
}

func (p *part) addClaim(n ledger.Name, c ledger.Claim) {
	claim := Claim{Name: Name{Text: n.Text, Under: n.Under}, InstanceID: c.InstanceID}
	p.answer.Claims = append(p.answer.Claims, claim)
	p.grow(claim)
}

func (p *part) addRecord(r ledger.Record) {
	i := instanceOf(&r)
	p.answer.Instances = append(p.answer.Instances, i)
	p.grow(i)
}

// instanceOf returns what the report shows of a record.
func instanceOf(r *ledger.Record) Instance {
	i := Instance{
		InstanceID: r.InstanceID, State: r.State, Account: r.Account, Region: r.Region, Profile: r.Profile, ProfileDigest: r.ProfileDigest,
		FQDN: r.FQDN, Addresses: r.Addresses, Objects: len(r.Objects), LoginType: r.LoginType, TokenMaxTTL: r.TokenMaxTTL,
		CertificateTTL: r.CertificateTTL, Attempts: r.Attempts, Error: clip(r.LastError), UncutUntil: r.UncutUntil, QuietUntil: r.QuietUntil,
		Leaving: r.LeavingSince, Revoking: len(r.Revoking), Ready: spanOf(r.Ready), Cut: spanOf(r.Cut), Quarantine: quarantineOf(r.Quarantine),
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, DeletedAt: r.DeletedAt,
	}
	for _, n := range r.Held() {
		i.Names = append(i.Names, Name{Text: n.Text, Under: n.Under})
	}
	for _, n := range r.Former {
		i.Former = append(i.Former, dated(n.Name, n.Until))
	}
	for _, n := range r.Released {
		i.Released = append(i.Released, dated(n.Name, n.At))
	}
	if r.ExpiresAt != 0 {
		at := time.Unix(r.ExpiresAt, 0).UTC()
		i.ExpiresAt = &at
	}
	return i
}

func spanOf(s *ledger.Span) *Span {
	if s == nil {
		return nil
	}
	return &Span{By: s.By, From: s.From, To: s.To}
}

func quarantineOf(q *ledger.Quarantine) *Quarantine {
	if q == nil {
		return nil
	}
	return &Quarantine{
		Since: q.Since, By: q.By, Reason: q.Reason, Source: q.Source, EndedAt: q.EndedAt,
		ReleasedAt: q.ReleasedAt, ReleasedBy: q.ReleasedBy, ReleaseReason: q.ReleaseReason,
	}
}

func dated(n ledger.Name, at time.Time) DatedName {
	d := DatedName{Name: Name{Text: n.Text, Under: n.Under}}
	if !at.IsZero() {
		d.At = &at
	}
	return d
}

// clip cuts a text after maxError bytes, and says so.
func clip(text string) string {
	if len(text) <= maxError {
		return text
	}
	end := maxError
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "… (cut off here; vault-ec2 explain has all of it)"
}
