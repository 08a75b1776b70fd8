package holders

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Ledger holds the records and claims.
type Ledger interface {
	Get(ctx context.Context, instanceID string) (*ledger.Record, error)
	Holder(ctx context.Context, name ledger.Name) (*ledger.Claim, error)
	// ScanFrom visits the records and claims behind a key while more returns true, and returns where to continue.
	ScanFrom(ctx context.Context, key string, v ledger.Visitor, more func() bool) (next string, err error)
}

// Vault holds the objects.
type Vault interface {
	Read(ctx context.Context, path string) (map[string]any, error)
}

// Instances asks EC2.
type Instances interface {
	Describe(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting
}

// Finder finds holders. It keeps no state and is safe for concurrent use.
type Finder struct {
	Deployment string
	AuthMount  string
	Profiles   *grant.Set
	Ledger     Ledger
	Vault      Vault
	Instances  Instances
	Now        func() time.Time
}

// Question is one question.
type Question struct {
	Names []string
	// Current leaves out the reading of the whole ledger.
	Current bool
	// After is where an earlier invocation stopped; empty at the beginning.
	After string
}

const (
	// reserve is the time before an invocation's deadline in which no page is read: the instances are read after the pages.
	reserve = 60 * time.Second
	// lookups is the number of claims that are read at once.
	lookups = 8
	// maxHolders bounds the rows of an answer, and with them its size.
	maxHolders = 1000
	// maxAskedInEC2 bounds the instances about which EC2 is asked.
	maxAskedInEC2 = 200
)

// search is one invocation.
type search struct {
	*Finder
	answer Answer

	mu      sync.Mutex
	records map[string]*ledger.Record // as read; nil for an instance without one
	failed  map[string]bool           // what could not be read
}

// Find answers a question. It returns no error: what could not be read is in the answer.
func (f *Finder) Find(ctx context.Context, q Question) Answer {
	s := &search{Finder: f, records: map[string]*ledger.Record{}, failed: map[string]bool{}}
	s.answer = Answer{
		Mode: "who", Deployment: f.Deployment, At: f.Now().UTC(), Asked: []Asked{}, Holders: []Holder{}, Instances: []Instance{}, Unread: []fault.Unread{}, Complete: true,
	}
	for _, name := range q.Names {
		s.answer.Asked = append(s.answer.Asked, understand(name))
	}
	if q.After == "" {
		s.findObjects(ctx)
		s.findClaims(ctx)
	}
	isOfLedger := slices.ContainsFunc(s.answer.Asked, Asked.isInLedger)
	if isOfLedger {
		s.answer.Complete = false
		if !q.Current {
			s.findInPages(ctx, q.After)
		}
	}
	s.describe(ctx)
	s.answer.sort()
	return s.answer
}

// addUnread adds something that could not be read.
func (s *search) addUnread(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !s.failed[what] {
		s.failed[what] = true
		s.answer.Unread = append(s.answer.Unread, fault.Unread{What: what, Error: err.Error()})
	}
}

// add adds a holder.
func (s *search) add(h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answer.Holders) < maxHolders {
		s.answer.Holders = append(s.answer.Holders, h)
	}
}

// findObjects finds the instances in the names of objects.
func (s *search) findObjects(ctx context.Context) {
	for _, a := range s.answer.Asked {
		if a.As != OfObject {
			continue
		}
		r := s.record(ctx, a.Text)
		h := Holder{Name: a.Name, InstanceID: a.Text, Under: a.Name, Basis: ByID}
		if r != nil {
			h.Now, h.Until = r.State != ledger.Deleted, r.DeletedAt
		}
		s.add(h)
	}
}

// findClaims reads the claims on names below the base paths and mounts of the profiles.
func (s *search) findClaims(ctx context.Context) {
	under := s.Profiles.Mounts().All()
	for _, p := range s.Profiles.Profiles {
		if !slices.Contains(under, p.BasePath) {
			under = append(under, p.BasePath)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookups)
	for _, a := range s.answer.Asked {
		if !a.isInLedger() {
			continue
		}
		for _, u := range under {
			group.Go(func() error {
				claim, err := s.Ledger.Holder(ctx, ledger.Name{Under: u, Text: a.Text})
				if err == nil && claim != nil {
					s.add(Holder{Name: a.Name, InstanceID: claim.InstanceID, Under: u, Now: true, Basis: ByClaim})
				}
				return err
			})
		}
	}
	s.addUnread("the claims in the ledger", group.Wait())
}

// findInPages reads the ledger page by page, as far as the time of the invocation goes.
func (s *search) findInPages(ctx context.Context, after string) {
	var err error
	s.answer.Next, err = s.Ledger.ScanFrom(ctx, after, ledger.Visitor{Record: s.visitRecord, Claim: s.visitClaim}, ledger.WhileTime(ctx, reserve))
	if err != nil {
		s.addUnread("the ledger's records and claims", err)
		s.answer.Next = ""
		return
	}
	s.answer.Complete = s.answer.Next == ""
}

func (s *search) visitClaim(n ledger.Name, c ledger.Claim) {
	s.answer.Scanned++
	for _, a := range s.answer.Asked {
		if a.matches(n.Text) {
			s.add(Holder{Name: a.Name, InstanceID: c.InstanceID, Under: n.Under, Now: true, Basis: ByClaim})
		}
	}
}

// visitRecord adds the names of a record: those that the instance gave up, those that it holds without a claim because instances share
// them, and those of a tombstone.
func (s *search) visitRecord(r ledger.Record) {
	s.answer.Scanned++
	for _, a := range s.answer.Asked {
		n := len(s.answer.Holders)
		for _, f := range r.Former {
			if a.matches(f.Text) {
				s.add(Holder{Name: a.Name, InstanceID: r.InstanceID, Under: f.Under, Now: true, Basis: ByFormer, Until: timeOrNil(f.Until)})
			}
		}
		for _, released := range r.Released {
			if a.matches(released.Text) {
				s.add(Holder{Name: a.Name, InstanceID: r.InstanceID, Under: released.Under, Basis: ByRelease, Until: timeOrNil(released.At)})
			}
		}
		isOfRecord := a.matches(r.FQDN) || slices.ContainsFunc(r.Addresses, a.matches)
		switch {
		case !isOfRecord:
		case r.State == ledger.Deleted:
			s.add(Holder{Name: a.Name, InstanceID: r.InstanceID, Basis: ByTombstone, Until: r.DeletedAt})
		case len(r.Objects) > 0:
			s.add(Holder{Name: a.Name, InstanceID: r.InstanceID, Now: true, Basis: ByRecord})
		}
		if len(s.answer.Holders) > n {
			s.records[r.InstanceID] = &r
		}
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// record returns the record of an instance; nil if there is none, or if it could not be read.
func (s *search) record(ctx context.Context, id string) *ledger.Record {
	s.mu.Lock()
	r, known := s.records[id]
	s.mu.Unlock()
	if known || s.failed["the ledger's records"] {
		return r
	}
	r, err := s.Ledger.Get(ctx, id)
	s.addUnread("the ledger's records", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[id] = r
	return r
}

// describe adds the instances of the holders.
func (s *search) describe(ctx context.Context) {
	s.answer.Holders = withoutDoubles(s.answer.Holders)
	byID := map[string]int{}
	for _, h := range s.answer.Holders {
		if _, known := byID[h.InstanceID]; known {
			continue
		}
		byID[h.InstanceID] = len(s.answer.Instances)
		s.answer.Instances = append(s.answer.Instances, s.instance(ctx, h.InstanceID))
	}
	var refs []facts.Ref
	for _, i := range s.answer.Instances {
		isLive := i.State != "" && i.State != ledger.Deleted
		if isLive && len(refs) < maxAskedInEC2 {
			refs = append(refs, facts.Ref{ID: i.InstanceID, Place: facts.Place{Account: i.Account, Region: i.Region}})
		}
	}
	if len(refs) > 0 {
		for ref, seen := range s.Instances.Describe(ctx, refs) {
			switch {
			case seen.Err != nil && !seen.LacksRole():
				s.addUnread("EC2 in "+ref.Name(), seen.Err)
			case seen.Found:
				s.answer.Instances[byID[ref.ID]].EC2 = string(seen.Facts.State)
			default:
				s.answer.Instances[byID[ref.ID]].EC2 = "not in EC2"
			}
		}
	}
	s.lookInVault(ctx, byID)
}

// instance returns an instance as its record has it.
func (s *search) instance(ctx context.Context, id string) Instance {
	out := Instance{InstanceID: id, Addresses: []string{}, Objects: []Object{}, AuditFilter: auditFilter(id)}
	r := s.record(ctx, id)
	if r == nil {
		return out
	}
	out.Account, out.Region, out.Profile, out.FQDN, out.State = r.Account, r.Region, r.Profile, r.FQDN, r.State
	if q := r.Quarantine; q != nil {
		out.Quarantine = &Quarantine{Since: q.Since, By: q.By, Reason: q.Reason, ReleasedAt: q.ReleasedAt}
	}
	out.CreatedAt, out.DeletedAt, out.Addresses = timeOrNil(r.CreatedAt), r.DeletedAt, slices.Concat(out.Addresses, r.Addresses)
	for _, o := range r.Objects {
		out.Objects = append(out.Objects, Object{Kind: o.Kind, Path: o.Path})
	}
	for _, o := range r.Retained {
		out.Objects = append(out.Objects, Object{Kind: o.Kind, Path: o.Path, Retained: true})
	}
	return out
}

// lookInVault says of each object that was asked for whether Vault has it. It reads its possible paths: the recorded one, the one that
// was asked, and those below the profiles' folders.
func (s *search) lookInVault(ctx context.Context, byID map[string]int) {
	var err error
	for _, a := range s.answer.Asked {
		i, known := byID[a.Text]
		if a.As != OfObject || !known {
			continue
		}
		of := &s.answer.Instances[i]
		for _, path := range s.pathsOf(a, of.Objects) {
			var data map[string]any
			if err == nil {
				data, err = s.Vault.Read(ctx, path)
			}
			exists := data != nil
			at := slices.IndexFunc(of.Objects, func(o Object) bool { return o.Path == path })
			if at < 0 && exists {
				at = len(of.Objects)
				of.Objects = append(of.Objects, Object{Kind: grant.KindOf(path, s.Profiles.Mounts()), Path: path})
			}
			if at >= 0 && err == nil {
				of.Objects[at].InVault = &exists
			}
		}
	}
	s.addUnread("the objects in Vault", err)
}

// pathsOf returns the paths at which an object that was asked for may be.
func (s *search) pathsOf(a Asked, recorded []Object) []string {
	name := strings.TrimSpace(a.Name)
	name = name[strings.LastIndexByte(name, '/')+1:]
	var paths []string
	add := func(path string) {
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, o := range recorded {
		if strings.HasSuffix(o.Path, "/"+name) {
			add(o.Path)
		}
	}
	if facts.IsInstanceID(name) {
		add(grant.AuthRolePath(s.AuthMount, name))
	} else if _, isPolicy := grant.InstanceOf(grant.KindPolicy, name); isPolicy {
		add(grant.PolicyPath(name))
	} else {
		for _, folder := range s.Profiles.OutputFolders() {
			add(folder + "/" + name)
		}
	}
	return paths
}
