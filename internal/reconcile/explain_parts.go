package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// maxMisses bounds the profiles that an explanation names as not matching.
const maxMisses = 20

// empty returns an explanation without anything but its head.
func (x *Explainer) empty(id string) Explanation {
	return Explanation{
		Mode: Explain, Deployment: x.Realm.Deployment, Profiles: x.Digest, At: x.Now().UTC(), InstanceID: id, Unread: []fault.Unread{}, Asked: []string{},
		Matches: []string{}, Misses: []Miss{}, Objects: []SeenObject{}, Names: []SeenName{}, Waiting: []string{}, Drift: []Drift{}, Login: Login{LoggedIn: Unknown},
	}
}

// malformed returns the explanation of a text that is no instance ID.
func (x *Explainer) malformed(id string) Explanation {
	e := x.empty(short(id))
	e.Verdict = Verdict{
		Status: Malformed, Summary: fmt.Sprintf("%+q is not the ID of an EC2 instance: i- and 8 or 17 digits of 0-9 and a-f", short(id)),
		Next: "copy the ID from EC2; for a name, an address or an object in Vault: vault-ec2 who --stack " + x.Realm.Deployment + " <name>",
	}
	return e
}

// explanation puts together what was read.
func (x *Explainer) explanation(t *story) Explanation {
	e := x.empty(t.id)
	e.Unread = append(e.Unread, t.unread...)
	for _, p := range t.asked {
		e.Asked = append(e.Asked, p.Name())
	}
	if t.sighting.Found {
		e.EC2, e.Group = x.seenInstance(t), t.group
		e.Matches, e.Misses = x.profilesOf(t)
	}
	if t.grant != nil {
		e.Grant = &WantedGrant{Profile: t.profile.Name, FQDN: t.grant.FQDN, AuthType: t.profile.Auth.Type}
		e.Grant.softened(t.profile)
	}
	e.Refusal = t.refusalNow()
	if t.record != nil {
		e.Record = seenRecord(t.record, t.now)
	}
	e.Objects = append(e.Objects, t.objects(x.Profiles.Mounts())...)
	e.Names, e.Waiting = append(e.Names, t.names...), append(e.Waiting, t.waiting...)
	e.Login, e.Compared = t.login, t.compared
	for _, row := range t.rows {
		e.Drift = append(e.Drift, row.Drift)
	}
	e.Verdict = x.verdict(t)
	return e
}

// seenInstance returns the instance as EC2 describes it, with those of its tags that a profile uses.
func (x *Explainer) seenInstance(t *story) *SeenInstance {
	f := t.sighting.Facts
	seen := &SeenInstance{
		Account: f.Account, Region: f.Region, AvailabilityZone: f.AvailabilityZone, State: string(f.State), LaunchTime: f.LaunchTime, VPCID: f.VPCID, ImageID: f.ImageID,
		PrivateDNSName: f.PrivateDNSName, Addresses: f.Addresses(), InstanceProfile: f.IAMInstanceProfileARN, Role: f.IAMRoleARN, RoleUnconfirmed: f.RoleUnconfirmed,
		Tags: map[string]string{}, Compared: slices.Contains(t.own, t.place),
	}
	for key, value := range f.Tags {
		if slices.ContainsFunc(x.Profiles.Profiles, func(p *grant.Profile) bool { return namesTag(p, key) }) {
			seen.Tags[key] = value
		}
	}
	return seen
}

// namesTag reports whether a profile names a tag's key.
func namesTag(p *grant.Profile, key string) bool {
	_, matched := p.Match.Tags[key]
	return matched || slices.Contains(p.TemplateTags(), key)
}

// profilesOf returns the profiles that match the instance, and those that do not, the closest first.
func (x *Explainer) profilesOf(t *story) (matches []string, misses []Miss) {
	matches, misses = []string{}, []Miss{}
	all := x.Profiles.Misses(t.sighting.Facts)
	for _, p := range x.Profiles.Profiles {
		if !slices.ContainsFunc(all, func(c grant.Comparison) bool { return c.Profile == p }) {
			matches = append(matches, p.Name)
		}
	}
	for _, c := range all[:min(len(all), maxMisses)] {
		m := Miss{Profile: c.Profile.Name}
		for _, condition := range c.Unmet {
			m.Unmet = append(m.Unmet, condition.String())
		}
		misses = append(misses, m)
	}
	return matches, misses
}

// refusalNow returns why the instance gets no grant now, or what the ledger recorded last; nil if nothing was refused.
func (t *story) refusalNow() *Refusal {
	var recorded string
	var since *time.Time
	if t.record != nil {
		recorded, since = t.record.LastError, &t.record.UpdatedAt
	}
	now := t.refusal
	if now == nil && t.sighting.LacksRole() {
		now = t.sighting.Err
	}
	switch {
	case now != nil && (now.Error() == recorded || (recorded != "" && strings.Contains(recorded, now.Error()))):
		return &Refusal{Error: now.Error(), Since: since}
	case now != nil:
		return &Refusal{Error: now.Error()}
	case recorded != "":
		return &Refusal{Error: recorded, Since: since}
	}
	return nil
}

// seenRecord returns a record without what only the program needs.
func seenRecord(r *ledger.Record, now time.Time) *SeenRecord {
	seen := &SeenRecord{
		State: r.State, Account: r.Account, Region: r.Region, Profile: r.Profile, FQDN: r.FQDN, Addresses: slices.Concat([]string{}, r.Addresses),
		CreatedAt: r.CreatedAt, MadeAt: r.MadeAt, UpdatedAt: r.UpdatedAt, DeletedAt: r.DeletedAt, QuietUntil: r.QuietUntil, LeavingSince: r.LeavingSince,
		ReplacingSince: r.ReplacingSince, UncutUntil: r.UncutUntil, Revoking: len(r.Revoking), Attempts: r.Attempts, LastError: r.LastError, Released: []ReleasedName{}, Program: r.Program,
	}
	seen.Quarantine = seenQuarantine(r)
	if until := time.UnixMilli(r.LeaseExpiresAt).UTC(); r.LeaseOwner != "" && !until.Before(now) {
		seen.LeasedUntil = &until
	}
	if r.ExpiresAt > 0 {
		end := time.Unix(r.ExpiresAt, 0).UTC()
		seen.ExpiresAt = &end
	}
	for _, n := range r.Released {
		seen.Released = append(seen.Released, ReleasedName{Name: n.Text, Under: n.Under, At: n.At})
	}
	return seen
}

// objects returns the objects of the grant, then those that only the record names, then those that only Vault lists.
func (t *story) objects(mounts grant.Mounts) []SeenObject {
	var out []SeenObject
	add := func(kind grant.Kind, path string) {
		if slices.ContainsFunc(out, func(o SeenObject) bool { return o.Path == path }) {
			return
		}
		out = append(out, SeenObject{
			Object: kind, Path: path, InVault: t.presence(path),
			Granted: t.grant != nil && t.grant.Has(path), Recorded: t.record != nil && t.record.Has(path), Retained: t.record.Retains(path),
		})
	}
	if t.grant != nil {
		for _, o := range t.grant.All() {
			add(o.Kind, o.Path)
		}
	}
	if t.record != nil {
		for _, o := range t.record.Objects {
			add(o.Kind, o.Path)
		}
		for _, o := range t.record.Retained {
			add(o.Kind, o.Path)
		}
	}
	for _, path := range t.paths {
		add(grant.KindOf(path, mounts), path)
	}
	return out
}

// presence reports whether Vault has an object. A read is younger than the lists.
func (t *story) presence(path string) Presence {
	exists, known := t.listing.exists(t.id, path)
	switch {
	case t.contents[path] != nil:
		return Yes
	case !known:
		return Unknown
	case exists:
		return Yes
	}
	return No
}

// nameOf returns the words for an instance's place.
func nameOf(places []facts.Place) string {
	names := make([]string, len(places))
	for i, p := range places {
		names[i] = p.Name()
	}
	return join(names)
}
