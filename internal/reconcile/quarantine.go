package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// OrderAnswer is the answer to the modes quarantine and release.
type OrderAnswer struct {
	Mode       Mode      `json:"mode"`
	Deployment string    `json:"deployment"`
	Namespace  string    `json:"namespace,omitempty"`
	At         time.Time `json:"at"`
	// OK reports whether the order was carried out for each instance.
	OK        bool      `json:"ok"`
	Instances []Ordered `json:"instances"`

	// Unfinished are the instances whose removal a later run finishes.
	Unfinished []string `json:"-"`
}

// OrderStatus is what became of an order about one instance.
type OrderStatus string

// The statuses.
const (
	IsQuarantined OrderStatus = "quarantined" // it is in quarantine, and its grant is removed
	IsMarked      OrderStatus = "marked"      // it is in quarantine, and the removal of its grant is not done
	IsReleased    OrderStatus = "released"    // its quarantine is released, and it has its grant if it runs and a profile matches
	IsUngranted   OrderStatus = "ungranted"   // its quarantine is released, and its grant could not be made
	IsRefused     OrderStatus = "refused"     // the order was not carried out
)

// Ordered is the result of an order about one instance.
type Ordered struct {
	InstanceID string      `json:"instanceId"`
	Status     OrderStatus `json:"status"`
	// Before reports whether the instance was in quarantine before a quarantine was ordered. Its first mark is kept.
	Before  bool     `json:"before,omitempty"`
	Account string   `json:"account,omitempty"`
	Region  string   `json:"region,omitempty"`
	Profile string   `json:"profile,omitempty"` // that the grant was, or is, of
	Objects []string `json:"objects"`           // the paths in Vault that this order removed, or granted
	Cut     int      `json:"cut"`               // the identity entities that this order deleted
	// CutAt is when every token was refused; nil if this order removed nothing.
	CutAt      *time.Time      `json:"cutAt"`
	Quarantine *SeenQuarantine `json:"quarantine"` // the mark; nil if there is none
	Error      string          `json:"error,omitempty"`
	Next       string          `json:"next"` // the next step
}

// Order carries out mode quarantine or release for the instances that the input names, and for no other. It returns no error: the answer
// has the result for each instance.
func (r *Reconciler) Order(ctx context.Context, in Input, converger Converger) OrderAnswer {
	a := OrderAnswer{Mode: in.Mode, Deployment: r.Realm.Deployment, At: r.Now().UTC(), OK: true}
	orders := make([]*order, len(in.InstanceIDs))
	for i, id := range in.InstanceIDs {
		orders[i] = &order{Reconciler: r, in: in, converger: converger, result: Ordered{InstanceID: id, Objects: []string{}}}
	}
	forAll := func(do func(*order)) {
		var group errgroup.Group
		group.SetLimit(sideBySide)
		for _, o := range orders {
			group.Go(func() error { do(o); return nil })
		}
		_ = group.Wait() // each order keeps its errors
	}
	if in.Mode == Release {
		forAll(func(o *order) { o.release(ctx) })
	} else {
		forAll(func(o *order) { o.quarantine(ctx) })
		if len(r.Profiles.Profiles) > 0 { // without profiles the folders of the objects are unknown
			listing := r.list(ctx)
			for _, o := range orders {
				o.removeUntracked(ctx, listing)
			}
		}
	}
	forAll(func(o *order) { o.conclude(ctx) })
	for _, o := range orders {
		a.Instances = append(a.Instances, o.result)
		a.OK = a.OK && (o.result.Status == IsQuarantined || o.result.Status == IsReleased)
		if o.result.Status == IsMarked || errors.Is(o.err, converge.ErrUnfinished) {
			a.Unfinished = append(a.Unfinished, o.result.InstanceID)
		}
	}
	return a
}

// order is an order about one instance.
type order struct {
	*Reconciler
	in        Input
	converger Converger
	ref       facts.Ref
	// found reports whether the place of the instance is known.
	found    bool
	released bool
	result   Ordered
	err      error
}

// locate finds the place of the instance: the recorded one, the input's, or the one that shows it. It returns EC2's answer there.
func (o *order) locate(ctx context.Context) (instance.Sighting, error) {
	id := o.result.InstanceID
	record, err := o.Ledger.Get(ctx, id)
	if err != nil {
		return instance.Sighting{}, err
	}
	o.result.Before = record.InQuarantine()
	var places []facts.Place
	switch {
	case record != nil:
		places = []facts.Place{{Account: record.Account, Region: record.Region}}
	case o.in.Account != "":
		places = []facts.Place{{Account: o.in.Account, Region: o.in.Region}}
	default:
		if places, err = o.places(ctx); err != nil {
			return instance.Sighting{}, err
		}
	}
	j := job{places: places, rows: []*Change{{Drift: Drift{InstanceID: id}}}}
	sightings := o.Instances.Describe(ctx, j.refs())
	var failed []error
	for _, ref := range j.refs() {
		s := sightings[ref]
		if s.Found || len(places) == 1 {
			o.ref, o.found = ref, true
			return s, nil
		}
		if s.Err != nil {
			failed = append(failed, s.Err)
		}
	}
	if len(failed) > 0 {
		return instance.Sighting{}, fmt.Errorf("EC2 did not answer everywhere, and the ledger has no record of the instance: name its --account and --region: %w", errors.Join(failed...))
	}
	return instance.Sighting{}, errors.New("EC2 does not show it in any place that reconcile compares, and the ledger has no record of it: check the ID, or name its --account and --region")
}

// request returns a request about the instance.
func (o *order) request() converge.Request {
	return converge.Request{Ref: o.ref, At: o.Now(), Verify: true}
}

func (o *order) by() *converge.Order {
	return &converge.Order{By: o.in.By, Reason: o.in.Reason, Source: ledger.ByCommand}
}

// quarantine marks the instance and removes its recorded grant.
func (o *order) quarantine(ctx context.Context) {
	s, err := o.locate(ctx)
	if err != nil {
		o.err = err
		return
	}
	req := o.request()
	req.Quarantine = o.by()
	o.add(o.converger.Converge(ctx, req, s))
}

// add adds the outcome of one run.
func (o *order) add(done converge.Outcome, err error) {
	o.err = errors.Join(o.err, err)
	o.result.Profile = cmp.Or(o.result.Profile, done.Profile)
	o.result.Cut += done.Cut
	for _, path := range done.Paths {
		if !slices.Contains(o.result.Objects, path) {
			o.result.Objects = append(o.result.Objects, path)
		}
	}
	if !done.CutAt.IsZero() {
		at := done.CutAt.UTC()
		o.result.CutAt = &at
	}
}

// removeUntracked removes the objects in Vault that bear the name of an instance in quarantine and that no record names.
func (o *order) removeUntracked(ctx context.Context, listing *listing) {
	if o.err != nil || !o.found {
		return
	}
	if len(listing.failed) > 0 {
		o.err = fmt.Errorf("Vault could not be listed, so that objects in no record may be left: %w", errors.Join(listing.failed...))
		return
	}
	id := o.result.InstanceID
	record, err := o.Ledger.Get(ctx, id)
	if err != nil || !record.InQuarantine() {
		o.err = err
		return
	}
	held := &inventory{listing: listing, inFolder: map[string]int{}, limit: stretch, now: o.Now()}
	held.addRecord(*record)
	req, err := o.removalOf(ctx, held, id)
	if err != nil || len(req.Untracked) == 0 {
		o.err = err
		return
	}
	req.Quarantine = o.by()
	o.add(o.converger.Converge(ctx, req, instance.Sighting{}))
}

// release ends the quarantine, and makes the grant as for a new start.
func (o *order) release(ctx context.Context) {
	s, err := o.locate(ctx)
	if err != nil {
		o.err = err
		return
	}
	req := o.request()
	req.Release = o.by()
	done, err := o.converger.Converge(ctx, req, s)
	if err != nil {
		o.err = err
		return
	}
	o.released = done.Released != nil
	s = o.Instances.Describe(ctx, []facts.Ref{o.ref})[o.ref] // the release is younger than the first answer
	if !s.Found && s.Err == nil {
		return
	}
	o.add(o.converger.Converge(ctx, o.request(), s))
}

// conclude sets the status and the next step by the record.
func (o *order) conclude(ctx context.Context) {
	res := &o.result
	if o.err != nil {
		res.Error = o.err.Error()
	}
	record, err := o.Ledger.Get(ctx, res.InstanceID)
	if err != nil {
		res.Error = cmp.Or(res.Error, err.Error())
	}
	if record != nil {
		res.Account, res.Region, res.Quarantine = record.Account, record.Region, seenQuarantine(record)
		res.Profile = cmp.Or(res.Profile, record.Profile)
	}
	call := func(name string) string {
		return "vault-ec2 " + name + " --stack " + o.Realm.Deployment + " " + res.InstanceID
	}
	isUnfinished := errors.Is(o.err, converge.ErrUnfinished)
	switch {
	case o.released && o.err == nil:
		res.Status, res.Next = IsReleased, "the instance logs in by itself; to see it: "+call("explain")
	case o.released:
		res.Status, res.Next = IsUngranted, "reconcile tries again at its next run; to see why: "+call("explain")
	case o.in.Mode == Release:
		res.Status, res.Next = IsRefused, "nothing was released; to see why: "+call("explain")
		if isUnfinished {
			res.Next = "its removal is not done: release it again in two minutes"
		}
	case !record.InQuarantine():
		res.Status, res.Next = IsRefused, "nothing was changed; to see the instance: "+call("explain")
	case isUnfinished:
		res.Status, res.Error = IsQuarantined, ""
		res.Next = "every token is cut; a second cut follows by itself. Afterwards, to end the quarantine: " + call("release")
	case o.err != nil || record.State != ledger.Deleted || len(record.Objects) > 0:
		res.Status, res.Next = IsMarked, "it gets no grant any more; the removal is tried again in two minutes and at each run of reconcile; now: "+call("quarantine")
	default:
		res.Status, res.Next = IsQuarantined, "find out what happened; to end the quarantine: "+call("release")
	}
}

// SeenQuarantine is the mark of an instance in an answer.
type SeenQuarantine struct {
	Since time.Time `json:"since"`
	// By is the person or the service that ordered it, as the order says. CloudTrail proves who invoked the function.
	By            string                  `json:"by"`
	Reason        string                  `json:"reason"`
	Source        ledger.QuarantineSource `json:"source"`
	EndedAt       *time.Time              `json:"endedAt"`    // when the instance was found to have ended
	ReleasedAt    *time.Time              `json:"releasedAt"` // nil while it is in quarantine
	ReleasedBy    string                  `json:"releasedBy,omitempty"`
	ReleaseReason string                  `json:"releaseReason,omitempty"`
}

func seenQuarantine(r *ledger.Record) *SeenQuarantine {
	q := r.Quarantine
	if q == nil {
		return nil
	}
	return &SeenQuarantine{
		Since: q.Since, By: q.By, Reason: q.Reason, Source: q.Source, EndedAt: q.EndedAt, ReleasedAt: q.ReleasedAt, ReleasedBy: q.ReleasedBy, ReleaseReason: q.ReleaseReason,
	}
}
