package simulation_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// The rules that hold at every single effect. All are called with the world locked.

// freshness is how long after EC2 showed something it may still be written: a look may be 30 s old when a run begins, and
// a run may make its last call 50 s after it took its lease.
const freshness = 80*time.Second + 100*tick

func (w *world) breaks(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(w.broken, text) {
		w.broken = append(w.broken, text)
	}
}

// idIn is the instance ID in a path.
func idIn(path string) string {
	i := strings.Index(path, "i-0")
	return path[i : i+len(id(0))]
}

// ruleWrite: what is written to Vault was recorded first, by whoever holds the lease, and is what an instance may have by
// what EC2 says of it, or did just now. The auth role comes last.
func (p *process) ruleWrite(path string) {
	if p.foreign[path] != nil {
		p.breaks("%s is somebody else's and was overwritten", path)
		return
	}
	r := p.Records[idIn(path)]
	if p.ended[r.InstanceID] && p.lag == 0 {
		p.breaks("%s was written after the instance was gone and removed", path)
	}
	if launched, is := p.left[r.InstanceID]; is && launched.Equal(p.ec2[r.InstanceID].LaunchTime) && p.spoiled[r.InstanceID]&(1<<recordLost) == 0 {
		p.breaks("%s was written after its group terminated the instance and it was removed", path)
	}
	digest := p.digest(path)
	gives := func(v version) bool { return v.found && v.want()[path] == digest }
	switch {
	case r.State != ledger.Provisioning:
		p.breaks("%s was written while its record was %q", path, r.State)
	case r.SHA256(path) != digest:
		p.breaks("%s was written otherwise than recorded", path)
	case !p.owners[r.LeaseOwner] || r.LeaseExpiresAt < time.Now().UnixMilli():
		p.breaks("%s was written without the lease", path)
	case !p.recently(r.InstanceID, p.lag, gives):
		p.breaks("%s was written as no facts of the last %s give it", path, freshness)
	case strings.HasPrefix(path, "auth/") && p.spoiled[r.InstanceID] == 0 && !p.recently(r.InstanceID, p.lag, func(v version) bool { return gives(v) && p.exist(v.want()) }):
		p.breaks("%s was written before all that it grants", path)
	}
	if !strings.HasPrefix(path, "auth/") {
		p.bears[path] = r.Claims
	}
}

// digest returns the digest of the object at a path.
func (w *world) digest(path string) string {
	fields := maps.Clone(w.Objects[path])
	delete(fields, "role_id")
	return grant.Object{Path: path, Fields: fields}.SHA256()
}

func (w *world) exist(want map[string]string) bool {
	for path := range want {
		if w.Objects[path] == nil {
			return false
		}
	}
	return true
}

// ruleDelete: what is not ours stays, and a removal begins with the auth role.
func (p *process) ruleDelete(path string) {
	if p.foreign[path] != nil {
		p.breaks("%s is somebody else's and was deleted", path)
	}
	delete(p.bears, path)
	id := idIn(path)
	if p.Records[id].State == ledger.Deprovisioning && p.roleID(id) != nil && p.spoiled[id] == 0 {
		p.breaks("%s was deleted before the auth role", path)
	}
}

// recently tells whether something was so of an instance at a moment just past.
func (w *world) recently(id string, lag time.Duration, so func(version) bool) bool {
	since := time.Now().Add(-freshness - lag)
	for _, v := range slices.Backward(w.history[id]) {
		if so(v) {
			return true
		}
		if v.from.Before(since) {
			return false
		}
	}
	return len(w.history[id]) == 0 || so(version{})
}

// rulePut: a removal begins only for an instance that is gone, or that no profile fits; and it has ended only when nothing
// is left and every token is cut.
func (p *process) rulePut(before, r ledger.Record) {
	id := r.InstanceID
	if r.State == ledger.Provisioning && before.Leaves(p.ec2[id].LaunchTime) {
		p.breaks("a grant for %s was begun, and its record says that its group terminates it", id)
	}
	if r.State == ledger.Active || r.State == ledger.Provisioning {
		for _, name := range r.Claims {
			if p.borne[name] == nil {
				p.borne[name] = map[string]time.Time{}
			}
			p.borne[name][id] = time.Now()
		}
	}
	if r.State == ledger.Deprovisioning && before.State != ledger.Deprovisioning {
		if !p.recently(id, p.lag, func(v version) bool {
			return !v.found || v.facts.State == facts.Terminated || v.facts.State == facts.ShuttingDown || !v.fits || v.leaving
		}) {
			p.breaks("the removal of %s was begun, which is %s and fits a profile", id, p.ec2[id].State)
		}
	}
	if r.State != ledger.Deleted || p.spoiled[id] != 0 {
		return
	}
	p.ended[id] = !p.alive(id)
	if p.leaving[id] && r.Leaves(p.ec2[id].LaunchTime) {
		p.left[id] = p.ec2[id].LaunchTime
	}
	if left := p.under(id); len(left) > 0 {
		p.breaks("%s counts as removed, and %v is left", id, left)
	}
	for name, c := range p.Claims {
		if _, former := r.HeldUntil(name); c.InstanceID == id && !former {
			p.breaks("%s counts as removed, and holds the name %s", id, name)
		}
	}
	for alias, e := range p.identities(id) {
		if !e.late {
			p.breaks("%s counts as removed, and its entity %s lives, with its tokens", id, alias)
		}
	}
}

// ruleDone: an event that is done with was not acknowledged in vain. Nothing but reconcile would notice.
func (p *process) ruleDone(t event.Event, leaving bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := t.ID
	if p.spoiled[id] != 0 || time.Since(t.Time) >= young {
		return
	}
	switch {
	case t.Hook != nil:
		if left := p.under(id); leaving && p.leaving[id] && len(left) > 0 {
			p.breaks("the hook that holds %s back was answered, and %v is left", id, left)
		}
	case t.State == facts.Terminated:
		p.ended[id] = true
		if left := p.under(id); len(left) > 0 {
			p.breaks("the end of %s was acknowledged, and %v is left", id, left)
		}
	case t.State == facts.Running && p.ec2[id].State == facts.Running && p.steady(id) && p.Records[id].State != ledger.Active:
		p.breaks("the start of %s was acknowledged, and its record is %q", id, p.Records[id].State)
	}
}

// steady tells whether an instance was to have a grant all the time for which EC2's answers may lag.
func (p *process) steady(id string) bool {
	since := time.Now().Add(-p.lag - young)
	for _, v := range slices.Backward(p.history[id]) {
		if v.facts.State != facts.Pending && v.want() == nil || !v.fits || v.leaving {
			return false
		}
		if v.from.Before(since) {
			break
		}
	}
	return true
}

// certificates is how long a certificate is good: max_ttl of the profiles above.
const certificates = 24 * time.Hour

// rules are those that hold whatever was done: no two instances have a name at once, and a login is possible only where
// all that it grants is there.
func (w *world) rules() {
	for _, path := range slices.Sorted(maps.Keys(w.bears)) {
		owner := idIn(path)
		for _, name := range w.bears[path] {
			if c := w.Claims[name]; w.Objects[path] != nil && c.InstanceID != owner && w.spoiled[owner] == 0 && w.spoiled[c.InstanceID] == 0 {
				w.breaks("%s lets %s be %s, and %q holds that name", path, owner, name, c.InstanceID)
			}
		}
	}
	for name, c := range w.Claims {
		for id, last := range w.borne[name] {
			living := w.alive(id) && !w.leaving[id] && w.spoiled[id] == 0 && w.spoiled[c.InstanceID] == 0
			if id != c.InstanceID && living && time.Since(last) < certificates {
				w.breaks("%s holds %s, for which %s, which lives, may have a certificate that is good", c.InstanceID, name, id)
			}
		}
	}
	for id := range w.history {
		role := w.Objects[grant.AuthRolePath(realm.AuthMount, id)]
		if role == nil || w.spoiled[id] != 0 {
			continue
		}
		for _, policy := range grant.TokenPolicies(role) {
			if strings.HasPrefix(policy, "ec2-") && w.Objects[grant.PolicyPath(policy)] == nil {
				w.breaks("%s can log in, and its policy %s is not there", id, policy)
			}
		}
		if ids, _ := role["bound_ec2_instance_id"].([]string); len(ids) != 1 || ids[0] != id {
			w.breaks("the auth role %s is bound to %v", id, ids)
		}
	}
}

// settled is what must be once all is quiet and reconcile has run: Vault, ledger and EC2 agree. It gives every
// difference.
func (w *world) settled() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := slices.Clone(w.broken)
	wrong := func(id, format string, args ...any) {
		out = append(out, fmt.Sprintf("instance %s (%s): ", id, w.ec2[id].State)+fmt.Sprintf(format, args...))
	}
	for path, fields := range w.foreign {
		if !maps.EqualFunc(w.Objects[path], fields, func(a, b any) bool { return a == b }) {
			out = append(out, path+" is somebody else's and is not as it was")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.history)) {
		r := w.Records[id]
		v := w.history[id][len(w.history[id])-1]
		// One that is refused keeps what it had.
		refused := v.found && v.fits && (v.want() == nil || w.contested(id))
		if w.obstructed(id) || w.unprovable(id) {
			continue // a person has to look: what is somebody else's is as it was
		}
		stopped := v.found && (v.facts.State == facts.Stopping || v.facts.State == facts.Stopped)
		if (stopped || refused) && (w.spoiled[id] != 0 || r.State == ledger.Provisioning || r.State == ledger.Deprovisioning) {
			continue // put right once it runs again, or may have something again; what is half there is of no use to it
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

type told func(id, format string, args ...any)

func (w *world) checkNothing(id string, wrong told) {
	if left := w.attributable(id, nil); len(left) > 0 {
		wrong(id, "want nothing, %v is left", left)
	}
	// Where a hand took the record, or the auth role before its role_id was recorded, nobody knows whose a login was.
	unknowable := w.spoiled[id]&(1<<recordLost|1<<objectGone) != 0
	for alias, e := range w.identities(id) {
		// A token that an instance without a grant got while it was taken away has no power, and ends by itself.
		if powerless := e.late && w.alive(id); !unknowable && !powerless {
			wrong(id, "its entity %s lives, and its tokens", alias)
		}
	}
	if late := w.lateEntry[id] && w.alive(id); w.Objects[entry(id)] != nil && !unknowable && !late {
		wrong(id, "its accesslist entry is left")
	}
	if r := w.Records[id]; r.State != ledger.Deleted && r.State != "" && r.State != ledger.Refused {
		wrong(id, "its record is %s", r.State)
	}
}

func (w *world) checkGrant(id string, want map[string]string, wrong told) {
	paths := slices.Sorted(maps.Keys(want))
	if have := w.attributable(id, paths); !slices.Equal(have, paths) {
		wrong(id, "want %v, there is %v", paths, have)
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

// attributable is what of ours stands under an instance's name. Where a hand took the record, a PKI role or generic object
// that is not to be made anew bears no proof whose it is, and is left alone.
func (w *world) attributable(id string, paths []string) []string {
	have := w.under(id)
	if w.spoiled[id]&(1<<recordLost) != 0 {
		have = slices.DeleteFunc(have, func(path string) bool { return strings.HasPrefix(path, "sim/") && !slices.Contains(paths, path) })
	}
	return have
}

// checkAgreement: whatever an instance has, the ledger names exactly that; of one that is refused, at least that.
func (w *world) checkAgreement(id string, r ledger.Record, refused bool, wrong told) {
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
		wrong(id, "recorded are %v, there is %v", paths, have)
	}
	for name, c := range w.Claims {
		if c.InstanceID == id && !slices.Contains(r.Names(), name) {
			wrong(id, "it holds the name %s, and its record does not say so", name)
		}
		// One that lives on without a grant keeps its names while its certificates are good.
		if c.InstanceID == id && len(paths) == 0 && !w.alive(id) {
			wrong(id, "it has nothing and holds the name %s", name)
		}
	}
}

// namesOf gives the names an instance would have, each under its mounts: a claim for each, and one may be lost alone.
func (w *world) namesOf(id string) []ledger.Name {
	tag := w.ec2[id].Tags["name"]
	if tag == "" {
		return nil
	}
	return []ledger.Name{{Under: "sim", Text: tag + ".sim.test"}, {Under: "sim/pki", Text: tag + ".sim.test"}}
}

// contested tells whether another instance that lives holds a name an instance would have.
func (w *world) contested(id string) bool {
	return slices.ContainsFunc(w.namesOf(id), func(name ledger.Name) bool {
		c, held := w.Claims[name]
		return held && c.InstanceID != id && w.alive(c.InstanceID)
	})
}

// waiting tells whether a live instance has no claim on a name it should have, and nobody else has.
func (w *world) waiting() bool {
	for id := range w.ec2 { // also one whose record was lost
		if w.alive(id) && slices.ContainsFunc(w.namesOf(id), func(name ledger.Name) bool { _, held := w.Claims[name]; return !held }) {
			return true
		}
	}
	return false
}

// unprovable tells whether a hand took the record of a grant that was half made: what stands then, without a policy whose
// marker tells whose it is, may be anybody's, and the instance is in conflict with it.
func (w *world) unprovable(id string) bool {
	left := w.under(id)
	return w.spoiled[id]&(1<<recordLost) != 0 && len(left) > 0 && len(w.Records[id].Objects) == 0 &&
		!slices.ContainsFunc(left, func(path string) bool { return strings.HasPrefix(path, grant.PolicyPath("")) })
}

// obstructed tells whether somebody else's object stands where one of the instance's is to be.
func (w *world) obstructed(id string) bool {
	for path := range w.foreign {
		if idIn(path) == id && w.Objects[path] != nil {
			return true
		}
	}
	return false
}
