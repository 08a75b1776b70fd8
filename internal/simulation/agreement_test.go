package simulation_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// differences returns the violations, and every difference between Vault, ledger and EC2. There must be none once all is quiet
// and reconcile has run.
func (w *world) differences() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := slices.Clone(w.violations)
	wrong := func(id, format string, args ...any) {
		out = append(out, fmt.Sprintf("instance %s (%s): ", id, w.ec2[id].State)+fmt.Sprintf(format, args...))
	}
	for path, fields := range w.foreign {
		if !maps.EqualFunc(w.Objects[path], fields, func(a, b any) bool { return a == b }) {
			out = append(out, path+" is another owner's and has changed")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.history)) {
		r := w.Records[id]
		v := w.history[id][len(w.history[id])-1]
		// A refused instance keeps its earlier grant.
		refused := v.found && v.fits && (v.want() == nil || w.contested(id))
		if w.obstructed(id) || w.unprovable(id) {
			continue // left to a person; the foreign objects are as they were
		}
		stopped := v.found && (v.facts.State == facts.Stopping || v.facts.State == facts.Stopped)
		if (stopped || refused) && (w.spoiled[id] != 0 || r.State == ledger.Provisioning || r.State == ledger.Deprovisioning) {
			continue // repaired once it runs again, or gets a grant again; half a grant is of no use to it
		}
		if r.LeaseOwner != "" || r.State == ledger.Provisioning || r.State == ledger.Deprovisioning {
			wrong(id, "its record is %s, lease %q: %s", r.State, r.LeaseOwner, r.LastError)
		}
		gone := !v.found || v.facts.State == facts.Terminated
		live := v.found && v.facts.State == facts.Running
		switch want := v.want; {
		case gone, live && !v.fits, live && r.Leaves(v.facts.LaunchTime):
			w.checkNothing(id, wrong)
		case live && want() != nil && !w.contested(id):
			w.checkGrant(id, want(), wrong)
		}
		w.checkAgreement(id, r, refused, wrong)
	}
	return out
}

// identities returns the entities of an instance's logins.
func (w *world) identities(id string) map[vaulttest.Alias]entity {
	out := maps.Clone(w.loggedIn)
	maps.DeleteFunc(out, func(a vaulttest.Alias, e entity) bool {
		_, lives := w.Entities[a]
		return e.instanceID != id || !lives
	})
	return out
}

type report func(id, format string, args ...any)

func (w *world) checkNothing(id string, wrong report) {
	if left := w.attributable(id, nil); len(left) > 0 {
		wrong(id, "want nothing, %v are left", left)
	}
	// Without the record, or with an auth role deleted before its role_id was recorded, the owner of a login is unknown.
	unknowable := w.spoiled[id]&(1<<recordLost|1<<objectGone) != 0
	for alias, e := range w.identities(id) {
		// A late token of a live instance without a grant has no power, and ends by itself.
		if powerless := e.late && w.isAlive(id); !unknowable && !powerless {
			wrong(id, "its entity %s is left, with its tokens", alias)
		}
	}
	if late := w.lateEntry[id] && w.isAlive(id); w.Objects[entry(id)] != nil && !unknowable && !late {
		wrong(id, "its accesslist entry is left")
	}
	if r := w.Records[id]; r.State != ledger.Deleted && r.State != "" && r.State != ledger.Refused {
		wrong(id, "its record is %s", r.State)
	}
}

func (w *world) checkGrant(id string, want map[string]string, wrong report) {
	paths := slices.Sorted(maps.Keys(want))
	if have := w.attributable(id, paths); !slices.Equal(have, paths) {
		wrong(id, "want %v, Vault has %v", paths, have)
		return
	}
	r := w.Records[id]
	if r.State != ledger.Active {
		wrong(id, "its record is %s: %s", r.State, r.LastError)
	}
	for _, path := range paths {
		if got := w.digest(path); got != want[path] || r.SHA256(path) != got {
			wrong(id, "%s is not as it should be, or not as recorded", path)
		}
	}
	for _, name := range r.Claims {
		if c := w.Claims[name]; c.InstanceID != id {
			wrong(id, "its name %s is held by %q", name, c.InstanceID)
		}
	}
	if len(r.Claims) == 0 {
		wrong(id, "it holds no name")
	}
}

// attributable returns the paths of ours that bear an instance's ID. Without the record, nothing proves the owner of a PKI role
// or generic object that the grant does not make again, and it is left alone.
func (w *world) attributable(id string, paths []string) []string {
	have := w.under(id)
	if w.spoiled[id]&(1<<recordLost) != 0 {
		have = slices.DeleteFunc(have, func(path string) bool { return strings.HasPrefix(path, "sim/") && !slices.Contains(paths, path) })
	}
	return have
}

// checkAgreement: the ledger names exactly the objects of an instance; of a refused one, at least those.
func (w *world) checkAgreement(id string, r ledger.Record, refused bool, wrong report) {
	var paths []string
	for _, o := range r.Objects {
		if w.foreign[o.Path] == nil {
			paths = append(paths, o.Path)
		}
	}
	slices.Sort(paths)
	have := w.attributable(id, paths)
	if refused {
		paths = slices.DeleteFunc(paths, func(path string) bool { return !slices.Contains(have, path) })
	}
	if !slices.Equal(have, paths) {
		wrong(id, "recorded are %v, Vault has %v", paths, have)
	}
	for name, c := range w.Claims {
		if c.InstanceID == id && !slices.Contains(r.Names(), name) {
			wrong(id, "it holds the name %s, which its record does not name", name)
		}
		// A live instance without a grant keeps its names while its certificates are good.
		if c.InstanceID == id && len(paths) == 0 && !w.isAlive(id) {
			wrong(id, "it has no object and holds the name %s", name)
		}
	}
}

// namesOf returns the names that an instance claims. Each claim may be lost alone.
func (w *world) namesOf(id string) []ledger.Name {
	tag := w.ec2[id].Tags["name"]
	if tag == "" {
		return nil
	}
	return []ledger.Name{{Under: "sim", Text: tag + ".sim.test"}, {Under: "sim/pki", Text: tag + ".sim.test"}}
}

// contested reports whether another live instance holds a name that an instance claims.
func (w *world) contested(id string) bool {
	return slices.ContainsFunc(w.namesOf(id), func(name ledger.Name) bool {
		c, held := w.Claims[name]
		return held && c.InstanceID != id && w.isAlive(c.InstanceID)
	})
}

// waiting reports whether a live instance claims a name that no instance holds.
func (w *world) waiting() bool {
	for id := range w.ec2 { // with those whose record was lost
		if w.isAlive(id) && slices.ContainsFunc(w.namesOf(id), func(name ledger.Name) bool { _, held := w.Claims[name]; return !held }) {
			return true
		}
	}
	return false
}

// unprovable reports whether the record of an unfinished grant was deleted by hand. Without a policy and its marker, nothing
// proves the owner of the existing objects, and the instance is in conflict with them.
func (w *world) unprovable(id string) bool {
	left := w.under(id)
	return w.spoiled[id]&(1<<recordLost) != 0 && len(left) > 0 && len(w.Records[id].Objects) == 0 &&
		!slices.ContainsFunc(left, func(path string) bool { return strings.HasPrefix(path, grant.PolicyPath("")) })
}

// obstructed reports whether a foreign object is in the place of one of the instance's.
func (w *world) obstructed(id string) bool {
	for path := range w.foreign {
		if idIn(path) == id && w.Objects[path] != nil {
			return true
		}
	}
	return false
}
