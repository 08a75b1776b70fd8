package simulation_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// The rules that hold after every single effect. All are called with the world locked.

// freshness is the largest age of facts at a write: 30 s when a run begins, and 50 s until its last call.
const freshness = 80*time.Second + 100*tick

func (w *world) violate(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(w.violations, text) {
		w.violations = append(w.violations, text)
	}
}

// idIn returns the instance ID in a path.
func idIn(path string) string {
	i := strings.Index(path, "i-0")
	return path[i : i+len(id(0))]
}

// checkWrite: an object was recorded before it is written, by the holder of the lease, and belongs to the instance by present or
// recent facts. The auth role is written last.
func (p *process) checkWrite(path string) {
	if p.foreign[path] != nil {
		p.violate("%s is another owner's and was overwritten", path)
		return
	}
	r := p.Records[idIn(path)]
	if p.endedRemoved[r.InstanceID] && p.lag == 0 {
		p.violate("%s was written after the instance was gone and removed", path)
	}
	if launched, is := p.leavingRemoved[r.InstanceID]; is && launched.Equal(p.ec2[r.InstanceID].LaunchTime) && p.spoiled[r.InstanceID]&(1<<recordLost) == 0 {
		p.violate("%s was written after its group terminated the instance and it was removed", path)
	}
	digest := p.digest(path)
	fits := func(v version) bool { return v.found && v.want()[path] == digest }
	switch {
	case r.State != ledger.Provisioning:
		p.violate("%s was written while its record was %q", path, r.State)
	case r.SHA256(path) != digest:
		p.violate("%s was written with other fields than recorded", path)
	case !p.owners[r.LeaseOwner] || r.LeaseExpiresAt < time.Now().UnixMilli():
		p.violate("%s was written without the lease", path)
	case !p.recently(r.InstanceID, p.lag, fits):
		p.violate("%s was written with fields that no facts of the last %s have", path, freshness)
	case strings.HasPrefix(path, "auth/") && p.spoiled[r.InstanceID] == 0 && !p.recently(r.InstanceID, p.lag, func(v version) bool { return fits(v) && p.exist(v.want()) }):
		p.violate("%s was written before an object that it grants", path)
	}
	if !strings.HasPrefix(path, "auth/") {
		p.namesOn[path] = r.Claims
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

// checkDelete: foreign objects stay, and a removal begins with the auth role.
func (p *process) checkDelete(path string) {
	if p.foreign[path] != nil {
		p.violate("%s is another owner's and was deleted", path)
	}
	delete(p.namesOn, path)
	id := idIn(path)
	if p.Records[id].State == ledger.Deprovisioning && p.roleID(id) != nil && p.spoiled[id] == 0 {
		p.violate("%s was deleted before the auth role", path)
	}
}

// recently reports whether a condition was true of an instance within its freshness.
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

// checkPut: a removal begins only for an instance that has ended, leaves its group or fits no profile, and ends only when nothing
// is left and every token is cut. No grant is begun for an instance that leaves.
func (p *process) checkPut(before, r ledger.Record) {
	id := r.InstanceID
	if r.State == ledger.Provisioning && before.Leaves(p.ec2[id].LaunchTime) {
		p.violate("a grant for %s was begun, whose record says that its group terminates it", id)
	}
	if r.State == ledger.Active || r.State == ledger.Provisioning {
		for _, name := range r.Claims {
			if p.lastNamed[name] == nil {
				p.lastNamed[name] = map[string]time.Time{}
			}
			p.lastNamed[name][id] = time.Now()
		}
	}
	if r.State == ledger.Deprovisioning && before.State != ledger.Deprovisioning {
		if !p.recently(id, p.lag, func(v version) bool {
			return !v.found || v.facts.State == facts.Terminated || v.facts.State == facts.ShuttingDown || !v.fits || v.leaving
		}) {
			p.violate("the removal of %s was begun, which is %s and fits a profile", id, p.ec2[id].State)
		}
	}
	if r.State != ledger.Deleted || p.spoiled[id] != 0 {
		return
	}
	p.endedRemoved[id] = !p.isAlive(id)
	if p.leaving[id] && r.Leaves(p.ec2[id].LaunchTime) {
		p.leavingRemoved[id] = p.ec2[id].LaunchTime
	}
	if left := p.under(id); len(left) > 0 {
		p.violate("%s counts as removed, and %v are left", id, left)
	}
	for name, c := range p.Claims {
		if _, former := r.HeldUntil(name); c.InstanceID == id && !former {
			p.violate("%s counts as removed, and holds the name %s", id, name)
		}
	}
	for alias, e := range p.identities(id) {
		if !e.late {
			p.violate("%s counts as removed, and its entity %s lives, with its tokens", id, alias)
		}
	}
}

// checkDone: the work of an acknowledged event is done. Otherwise only reconcile would notice.
func (p *process) checkDone(t event.Event, leaving bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := t.ID
	if p.spoiled[id] != 0 || time.Since(t.Time) >= young {
		return
	}
	switch {
	case t.Hook != nil:
		if left := p.under(id); leaving && p.leaving[id] && len(left) > 0 {
			p.violate("the terminate hook of %s was answered, and %v are left", id, left)
		}
	case t.State == facts.Terminated:
		p.endedRemoved[id] = true
		if left := p.under(id); len(left) > 0 {
			p.violate("the end of %s was acknowledged, and %v are left", id, left)
		}
	case t.State == facts.Running && p.ec2[id].State == facts.Running && p.steady(id) && p.Records[id].State != ledger.Active:
		p.violate("the start of %s was acknowledged, and its record is %q", id, p.Records[id].State)
	}
}

// checkRefusal: Vault takes every value here, so an object that reads back otherwise was read from a server that is behind, and
// nothing foreign is there but what was put by hand.
func (p *process) checkRefusal(t event.Event, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	isRefused := !isRetry(err) && strings.Contains(err.Error(), "reads back")
	isConflict := fault.KindOf(err) == fault.Conflict && strings.Contains(err.Error(), "marker")
	if p.spoiled[t.ID] == 0 && (isRefused || isConflict) {
		p.violate("%s was refused for a read that was behind: %v", t.ID, err)
	}
}

// steady reports whether an instance was due a grant all the time for which EC2's answers may lag.
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

// certificates is how long a certificate is good: max_ttl of the profiles.
const certificates = 24 * time.Hour

// checkAlways: no two instances have a name at once, and a login is possible only while its policies exist.
func (w *world) checkAlways() {
	for _, path := range slices.Sorted(maps.Keys(w.namesOn)) {
		owner := idIn(path)
		for _, name := range w.namesOn[path] {
			if c := w.Claims[name]; w.Objects[path] != nil && c.InstanceID != owner && w.spoiled[owner] == 0 && w.spoiled[c.InstanceID] == 0 {
				w.violate("%s has the name %[3]s for %[2]s, which %[4]q holds", path, owner, name, c.InstanceID)
			}
		}
	}
	for name, c := range w.Claims {
		for id, last := range w.lastNamed[name] {
			living := w.isAlive(id) && !w.leaving[id] && w.spoiled[id] == 0 && w.spoiled[c.InstanceID] == 0
			if id != c.InstanceID && living && time.Since(last) < certificates {
				w.violate("%s holds %s, for which the live instance %s may have a good certificate", c.InstanceID, name, id)
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
				w.violate("%s can log in, and its policy %s does not exist", id, policy)
			}
		}
		if ids, _ := role["bound_ec2_instance_id"].([]string); len(ids) != 1 || ids[0] != id {
			w.violate("the auth role %s is bound to %v", id, ids)
		}
	}
}
