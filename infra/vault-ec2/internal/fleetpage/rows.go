package fleetpage

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/report"
)

// The bases on which the page says that an instance holds or held a name.
const (
	byClaim     = "claim"                    // no other instance can get it
	byFormer    = "claim of an earlier name" // the grant no longer has it; a certificate with it may be good
	byOrphan    = "claim without a record"
	byMark      = "claim in quarantine" // the grant is removed, and no other instance gets the name
	byRecord    = "record without a claim"
	byShare     = "shared" // instances share it: no claim holds it
	byRelease   = "released"
	byTombstone = "tombstone"
)

// instanceColumns and nameColumns are the columns of the rows. A text is its place in Texts, a time is in Unix milliseconds, and 0 is none.
func instanceColumns() []string {
	return []string{
		"id", "state", "account", "region", "profile", "fqdn", "addresses", "objects", "login", "error", "attempts",
		"created", "updated", "deleted", "expires", "readyBy", "readyFrom", "readyTo", "cutBy", "cutFrom", "cutTo",
		"uncut", "quiet", "leaving", "revoking",
	}
}

func nameColumns() []string { return []string{"name", "under", "instance", "now", "basis", "until"} }

// New returns the page's data.
func New(s Source) Data {
	b := builder{index: map[string]int{}, byID: map[string]*report.Instance{}}
	b.text("") // its place is 0
	slices.SortFunc(s.Instances, func(x, y report.Instance) int { return cmp.Compare(x.InstanceID, y.InstanceID) })
	d := Data{
		Head: s.Head, Omitted: s.Omitted, Comparison: s.Comparison, InstanceColumns: instanceColumns(), NameColumns: nameColumns(),
		Instances: [][]any{}, Quarantines: []Quarantine{},
	}
	for i := range s.Instances {
		b.byID[s.Instances[i].InstanceID] = &s.Instances[i]
		d.Instances = append(d.Instances, b.instance(&s.Instances[i]))
		if q := s.Instances[i].Quarantine; q != nil {
			d.Quarantines = append(d.Quarantines, Quarantine{InstanceID: s.Instances[i].InstanceID, Quarantine: *q})
		}
	}
	d.Names = b.namesOf(s)
	d.Texts = b.texts
	return d
}

type builder struct {
	texts []string
	index map[string]int
	byID  map[string]*report.Instance
	names []nameRow
}

// nameRow is a name that an instance holds or held.
type nameRow struct {
	text, under, instance, basis string
	now                          bool
	until                        int64
}

// text returns the place of a text.
func (b *builder) text(s string) int {
	i, known := b.index[s]
	if !known {
		i = len(b.texts)
		b.index[s] = i
		b.texts = append(b.texts, s)
	}
	return i
}

func millis(t *time.Time) int64 {
	if t == nil || t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func (b *builder) instance(i *report.Instance) []any {
	addresses := make([]int, len(i.Addresses))
	for n, a := range i.Addresses {
		addresses[n] = b.text(a)
	}
	ready, cut := cmp.Or(i.Ready, &report.Span{By: "?"}), cmp.Or(i.Cut, &report.Span{By: "?"})
	return []any{
		b.text(i.InstanceID), b.text(string(i.State)), b.text(i.Account), b.text(i.Region), b.text(i.Profile), b.text(i.FQDN), addresses,
		i.Objects, b.text(i.LoginType), b.text(i.Error), i.Attempts,
		millis(&i.CreatedAt), millis(&i.UpdatedAt), millis(i.DeletedAt), millis(i.ExpiresAt),
		b.text(string(ready.By)), millis(ready.From), millis(ready.To), b.text(string(cut.By)), millis(cut.From), millis(cut.To),
		millis(i.UncutUntil), millis(i.QuietUntil), millis(i.Leaving), i.Revoking,
	}
}

// namesOf returns the rows of all names. A claim shows who holds a name; where it and the record differ, the row says so.
func (b *builder) namesOf(s Source) [][]any {
	claimed := map[string]map[report.Name]bool{} // by instance
	for _, c := range s.Claims {
		if claimed[c.InstanceID] == nil {
			claimed[c.InstanceID] = map[report.Name]bool{}
		}
		claimed[c.InstanceID][c.Name] = true
		row := nameRow{text: c.Text, under: c.Under, instance: c.InstanceID, basis: byClaim, now: true}
		switch i := b.byID[c.InstanceID]; {
		case i == nil:
			row.basis = byOrphan
		case !slices.Contains(i.Names, c.Name):
			at := slices.IndexFunc(i.Former, func(n report.DatedName) bool { return n.Name == c.Name })
			if at < 0 {
				row.basis = byOrphan
				break
			}
			row.basis, row.until = byFormer, millis(i.Former[at].At)
			if q := i.Quarantine; q != nil && q.ReleasedAt == nil && q.EndedAt == nil {
				row.basis = byMark
			}
		}
		b.names = append(b.names, row)
	}
	for n := range s.Instances {
		b.addNames(&s.Instances[n], claimed[s.Instances[n].InstanceID])
	}
	slices.SortStableFunc(b.names, func(x, y nameRow) int {
		return cmp.Or(cmp.Compare(x.text, y.text), cmp.Compare(y.until, x.until), cmp.Compare(x.instance, y.instance), cmp.Compare(x.under, y.under))
	})
	out := make([][]any, len(b.names))
	for n, r := range b.names {
		now := 0
		if r.now {
			now = 1
		}
		out[n] = []any{b.text(r.text), b.text(r.under), b.text(r.instance), now, b.text(r.basis), r.until}
	}
	return out
}

// addNames adds the names of a record that no claim shows.
func (b *builder) addNames(i *report.Instance, claimed map[report.Name]bool) {
	add := func(r nameRow) {
		r.instance = i.InstanceID
		b.names = append(b.names, r)
	}
	known := map[string]bool{}
	for c := range claimed {
		known[withoutVPC(c.Text)] = true
	}
	for _, n := range i.Names {
		if known[withoutVPC(n.Text)] = true; !claimed[n] {
			add(nameRow{text: n.Text, under: n.Under, basis: byRecord, now: true})
		}
	}
	for _, n := range i.Released {
		known[withoutVPC(n.Text)] = true
		add(nameRow{text: n.Text, under: n.Under, basis: byRelease, until: millis(n.At)})
	}
	for _, text := range append([]string{i.FQDN}, i.Addresses...) {
		switch {
		case text == "" || known[text]:
		case i.State == ledger.Deleted:
			add(nameRow{text: text, basis: byTombstone, until: millis(i.DeletedAt)})
		case i.Objects > 0:
			add(nameRow{text: text, basis: byShare, now: true})
		}
	}
}

// withoutVPC returns an address without the VPC that a claim names where networks overlap.
func withoutVPC(text string) string {
	address, _, _ := strings.Cut(text, "@")
	return address
}
