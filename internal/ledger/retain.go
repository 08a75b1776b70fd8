package ledger

import (
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// retained returns the retained object at a path.
func (r *Record) retained(path string) (o Object, ok bool) {
	i := slices.IndexFunc(r.Retained, func(o Object) bool { return o.Path == path })
	if i < 0 {
		return Object{}, false
	}
	return r.Retained[i], true
}

// Retains reports whether the record has an object among those that it retains. It is false for a nil record.
func (r *Record) Retains(path string) bool {
	if r == nil {
		return false
	}
	_, ok := r.retained(path)
	return ok
}

// RetainsNow reports whether an object that the record names is to stay in Vault, or stays there.
func (r *Record) RetainsNow(path string) bool {
	o, _ := r.object(path)
	return o.Retain || r.Retains(path)
}

// RetainsAs reports whether the recorded objects are retained, or not, as a grant has it, and no other recorded object is to be.
func (r *Record) RetainsAs(g *grant.Grant) bool {
	wanted := map[string]bool{}
	for _, o := range g.All() {
		wanted[o.Path] = o.Retain
	}
	return !slices.ContainsFunc(r.Objects, func(o Object) bool { return o.Retain != wanted[o.Path] })
}

// Retain moves the objects that stay in Vault, by their mark and kind, and that a grant does not have to Retained. A nil grant has
// none. A mark on an object that may let something in counts for nothing: it stays among the objects to remove.
func (r *Record) Retain(g *grant.Grant) {
	isGranted := func(o Object) bool { return g != nil && g.Has(o.Path) }
	stays := func(o Object) bool { return o.Retain && grant.MayRetain(o.Kind, o.Path) && !isGranted(o) }
	kept := slices.DeleteFunc(slices.Clone(r.Retained), isGranted)
	var rest []Object
	for _, o := range r.Objects {
		switch {
		case !stays(o):
			rest = append(rest, o)
		case !slices.ContainsFunc(kept, func(k Object) bool { return k.Path == o.Path }):
			o.Left = false
			kept = append(kept, o)
		}
	}
	r.Objects, r.Retained = rest, kept
}

// RetainedPaths returns the paths of the retained objects; nil for a nil record.
func (r *Record) RetainedPaths() []string {
	if r == nil {
		return nil
	}
	var paths []string
	for _, o := range r.Retained {
		paths = append(paths, o.Path)
	}
	return paths
}
