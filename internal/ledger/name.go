package ledger

import (
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Claim is the item by which one instance holds a name.
type Claim struct {
	InstanceID string `dynamodbav:"instance_id"`
	Account    string `dynamodbav:"account"`
	Region     string `dynamodbav:"region"`
}

// Name is a name or an address that one instance alone may hold: see grant.Claim. Its attributes are named after the base
// path and the FQDN, the first kind of claim.
type Name struct {
	Under string `dynamodbav:"base_path"`
	Text  string `dynamodbav:"fqdn"`
}

func (n Name) String() string { return n.Text + " below " + n.Under }

// FormerName is a name that the instance still holds although its grant no longer has it.
type FormerName struct {
	Name
	// Until is when the last certificate with the name ends. Zero means unknown: the name is then held as long as the instance
	// lives.
	Until time.Time `dynamodbav:"until,omitempty"`
}

// ReleasedName is a name that the instance held until a time.
type ReleasedName struct {
	Name
	At time.Time `dynamodbav:"at"`
}

// setReleased sets the names that the instance no longer holds after a write: those that the write releases, and the earlier ones
// that it does not claim again and whose time is not over.
func (r *Record) setReleased(w Write, now time.Time) {
	var released []ReleasedName
	for _, n := range r.Released {
		isHeld := slices.Contains(w.Claims, n.Name)
		isOver := now.Sub(n.At) > tombstoneTime
		if !isHeld && !isOver && !slices.Contains(w.Release, n.Name) {
			released = append(released, n)
		}
	}
	for _, n := range w.Release {
		released = append(released, ReleasedName{Name: n, At: now})
	}
	r.Released = released[max(0, len(released)-grant.MaxClaims):]
}

// NamesOf returns the names that a grant claims.
func NamesOf(g *grant.Grant) []Name {
	names := make([]Name, len(g.Claims))
	for i, c := range g.Claims {
		names[i] = Name{Under: c.Under, Text: c.Text}
	}
	return names
}

// Held returns the names of the record's present grant.
func (r *Record) Held() []Name {
	if len(r.Claims) > 0 || r.FQDN == "" || len(r.Objects) == 0 {
		return r.Claims
	}
	return []Name{{Under: r.BasePath, Text: r.FQDN}}
}

// Names returns all names that the instance may hold, without doubles: those of its grant and the former ones.
func (r *Record) Names() []Name {
	names := slices.Clone(r.Held())
	for _, n := range r.Former {
		if !slices.Contains(names, n.Name) {
			names = append(names, n.Name)
		}
	}
	return names
}

// HeldUntil returns the end of a former name; zero means unknown. former is false for any other name, and for a nil record.
func (r *Record) HeldUntil(name Name) (until time.Time, former bool) {
	if r == nil {
		return time.Time{}, false
	}
	for _, n := range r.Former {
		if n.Name == name {
			return n.Until, true
		}
	}
	return time.Time{}, false
}

// MakeFormer adds names to the former ones, without an end: DateFormer sets it.
func (r *Record) MakeFormer(names []Name) {
	former := slices.Clone(r.Former)
	for _, n := range names {
		if _, known := r.HeldUntil(n); !known {
			former = append(former, FormerName{Name: n})
		}
	}
	r.Former = former
}

// DateFormer sets the end of the former names without one.
func (r *Record) DateFormer(until time.Time) {
	r.Former = slices.Clone(r.Former)
	for i := range r.Former {
		if r.Former[i].Until.IsZero() {
			r.Former[i].Until = until
		}
	}
}
