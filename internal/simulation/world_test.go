package simulation_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// world is Vault, the ledger and EC2 in memory. Its time is that of a testing/synctest bubble, which passes only while all
// goroutines wait. Violations are of the rules in rules_test.go.
type world struct {
	*vaulttest.Vault
	*ledgertest.Table

	mu       sync.Mutex
	ec2      map[string]facts.Instance
	history  map[string][]version
	logins   []login // in flight
	loggedIn map[vaulttest.Alias]entity
	// lateEntry reports of instances whether their last login was late.
	lateEntry map[string]bool
	namesOn   map[string][]ledger.Name
	lastNamed map[ledger.Name]map[string]time.Time // when an instance could last get a certificate with a name
	foreign   map[string]map[string]any
	// endedRemoved are the ended instances whose removal is done.
	endedRemoved map[string]bool
	// leaving are the instances that their Auto Scaling group terminates while EC2 shows them as running. leavingRemoved has the
	// launch times of those whose removal is done.
	leaving        map[string]bool
	leavingRemoved map[string]time.Time
	// spoiled has the kinds of edits by hand of each instance, as bits.
	spoiled    map[string]int
	violations []string
	woken      []event.Event // sent to the provision queue, and not in it yet

	processes int // so far
}

// entity is the identity of a login. late reports whether the auth role was deleted before the login ended.
type entity struct {
	instanceID string
	late       bool
}

type login struct {
	vaulttest.Login
	roleID any
}

// version is an instance from a time on. found is false while EC2 does not show it.
type version struct {
	found bool
	facts facts.Instance
	from  time.Time
	want  func() map[string]string // path to digest
	fits  bool                     // at least one profile
	// leaving reports whether its group terminates it.
	leaving bool
}

var (
	here  = facts.Place{Account: "123456789012", Region: "us-east-1"}
	realm = grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"}
)

const (
	tick  = 5 * time.Millisecond // of each call
	young = converge.Grace       // how far EC2's answers may lag behind
)

// profiles are three: one with names by EC2, one with names by tag and a policy that outlives the grant, and one that fits some
// instances of the first too.
var profiles = sync.OnceValue(func() *grant.Set {
	const profile = `
name: sim-%s
match: {iam_role_arn: "arn:aws:iam::*:role/%s"%s}
base_path: sim
fqdn: %s
auth: {type: ec2, token_ttl: 1h, token_max_ttl: 24h, bind_token_to_instance_ip: true%s}
outputs:
  - {name: node, type: policy, template: policy.tmpl}
  - {name: server, type: pki-role, path: pki/roles, template: role.tmpl}
%s`
	files := fstest.MapFS{}
	for _, p := range []struct{ name, role, match, fqdn, auth, output string }{
		{"worker", "worker", "", `"{{ .PrivateDNSName }}"`, "", "  - {name: host, type: generic, path: ssh/roles, template: host.tmpl}\n  - {name: sshd, type: ssh-role, path: hostca/roles, template: sshd.tmpl}\n"},
		{"named", "named", "", `"{{ .Tag \"name\" }}.sim.test"` + "\nfqdn_suffixes: [sim.test]", ", extra_policies: [shared]", ""},
		{"special", "worker", `, tags: {special: "yes"}`, `"{{ .PrivateDNSName }}"`, "", ""},
	} {
		for name, text := range map[string]string{
			"profile.yaml": fmt.Sprintf(profile, p.name, p.role, p.match, p.fqdn, p.auth, p.output),
			"policy.tmpl":  "{{ pkiAccess \"server\" }}\n\npath \"auth/token/lookup-self\" {\n  capabilities = [\"read\"]\n}\n",
			"role.tmpl":    `{"max_ttl": "24h", "key_type": "ec", "key_bits": 256}`,
		} {
			files[p.name+"/"+name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	files["worker/sshd.tmpl"] = &fstest.MapFile{Data: []byte(`{"max_ttl": "24h"}`)}
	files["worker/policy.tmpl"] = &fstest.MapFile{Data: []byte("{{ pkiAccess \"server\" }}\n{{ sshAccess \"sshd\" }}\n")}
	files["worker/host.tmpl"] = &fstest.MapFile{Data: []byte(`{"allowed_users": "{{ .FQDN }}"}`)}
	set, err := grant.Load(files)
	if err != nil {
		panic(err)
	}
	return set
})

func newWorld() *world {
	w := &world{
		Vault: vaulttest.New(), Table: ledgertest.New(), loggedIn: map[vaulttest.Alias]entity{}, lateEntry: map[string]bool{}, ec2: map[string]facts.Instance{}, history: map[string][]version{},
		namesOn: map[string][]ledger.Name{}, lastNamed: map[ledger.Name]map[string]time.Time{}, foreign: map[string]map[string]any{}, spoiled: map[string]int{}, endedRemoved: map[string]bool{},
		leaving: map[string]bool{}, leavingRemoved: map[string]time.Time{},
	}
	w.EC2Alias, w.Now = "role_id", time.Now
	return w
}

// id returns the ID of the n-th instance.
func id(n int) string { return fmt.Sprintf("i-%017x", 0xabc000+n) }

// worker returns the n-th instance, pending. It gets its DNS name when it runs.
func worker(n int) facts.Instance {
	return facts.Instance{
		ID: id(n), State: facts.Pending, Account: here.Account, Region: here.Region, VPCID: "vpc-0a1b2c3d",
		IPv4s:                 []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(n + 1)})},
		IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/worker", IAMRoleARN: "arn:aws:iam::123456789012:role/worker",
	}
}

// named returns the n-th instance with a name by tag.
func named(n int, name string) facts.Instance {
	f := worker(n)
	f.IAMInstanceProfileARN, f.IAMRoleARN = "arn:aws:iam::123456789012:instance-profile/named", "arn:aws:iam::123456789012:role/named"
	f.Tags = map[string]string{"name": name}
	return f
}

// show has EC2 show an instance as f.
func (w *world) show(f facts.Instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.State == facts.Running && f.PrivateDNSName == "" {
		a := f.IPv4s[0].As4()
		f.PrivateDNSName = fmt.Sprintf("ip-%d-%d-%d-%d.ec2.internal", a[0], a[1], a[2], a[3])
	}
	w.ec2[f.ID] = f
	p, err := profiles().Match(f)
	v := version{found: true, facts: f, from: time.Now(), fits: p != nil || err != nil, leaving: w.leaving[f.ID]}
	v.want = sync.OnceValue(func() map[string]string {
		if p == nil || err != nil {
			return nil
		}
		g, err := p.Draft(f, realm)
		if err != nil {
			return nil
		}
		want := map[string]string{}
		for _, o := range g.All() {
			want[o.Path] = o.SHA256()
		}
		return want
	})
	w.history[f.ID] = append(w.history[f.ID], v)
}

// setState changes the state of an instance and returns the event that AWS would send.
func (w *world) setState(id string, state facts.State) event.Event {
	f := w.ec2[id]
	if f.State == facts.Stopped && state == facts.Running {
		f.LaunchTime = time.Now() // a new life, which its group does not end
		if w.leaving[id] {
			// A leaving instance releases its names at once, whatever its certificates: see SECURITY.md.
			for _, bearers := range w.lastNamed {
				delete(bearers, id)
			}
		}
		delete(w.leaving, id)
	}
	f.State = state
	w.show(f)
	return w.eventOf(id, state)
}

// startLeaving has an instance's group terminate it, while EC2 shows it as running. It returns the event of the group's hook.
func (w *world) startLeaving(id string) event.Event {
	w.leaving[id] = true
	w.show(w.ec2[id])
	return w.hookEvent(id)
}

// hookEvent returns the event of a terminate hook.
func (w *world) hookEvent(id string) event.Event {
	t := w.eventOf(id, facts.Running)
	t.Hook = &event.Hook{Terminating: true}
	return t
}

// eventOf returns an event of now.
func (w *world) eventOf(id string, state facts.State) event.Event {
	return event.Event{Ref: facts.Ref{ID: id, Place: facts.Place{Account: here.Account, Region: here.Region}}, State: state, Time: time.Now().Truncate(time.Second)}
}

// hide removes an ended instance from EC2's answers.
func (w *world) hide(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ec2, id)
	w.history[id] = append(w.history[id], version{from: time.Now()})
}

// isAlive reports whether an instance runs, or may start again.
func (w *world) isAlive(id string) bool {
	f, ok := w.ec2[id]
	return ok && f.State != facts.ShuttingDown && f.State != facts.Terminated
}

// beginLogin begins a login: Vault reads the auth role and asks EC2.
func (w *world) beginLogin(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, ok := w.BeginLogin(realm.AuthMount, id)
	ok = ok && w.ec2[id].State == facts.Running
	if ok {
		w.logins = append(w.logins, login{l, w.roleID(id)})
	}
	return ok
}

// roleID returns the role_id of an instance's auth role; nil for none.
func (w *world) roleID(id string) any {
	return w.Objects[grant.AuthRolePath(realm.AuthMount, id)]["role_id"]
}

// endLogins ends the logins in flight: Vault makes the accesslist entry, the entity and the token.
func (w *world) endLogins() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.logins {
		w.EndLogin(l.Login)
		late := w.roleID(l.InstanceID) != l.roleID
		w.loggedIn[l.Alias], w.lateEntry[l.InstanceID] = entity{instanceID: l.InstanceID, late: late}, late
	}
	w.logins = nil
}

// The kinds of edits by hand.
const (
	objectGone = iota
	lockLoosened
	claimLost
	recordLost // with its claims
	foreignObject
	ways
)

// spoil makes an edit by hand.
func (w *world) spoil(id string, what int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spoiled[id] |= 1 << what
	r := w.Records[id]
	for _, path := range append(w.under(id), grant.PolicyPath(grant.PolicyName(id, "node"))) {
		w.ForgetFormer(path) // every server shows an edit by hand at once
	}
	switch what {
	case objectGone:
		if paths := w.under(id); len(paths) > 0 {
			delete(w.Objects, paths[0])
		}
	case lockLoosened:
		for _, path := range w.under(id) {
			if w.Objects[path]["allow_subdomains"] == false {
				w.Objects[path] = maps.Clone(w.Objects[path])
				w.Objects[path]["allow_subdomains"] = true
			}
		}
	case claimLost:
		if r.LeaseOwner == "" && len(r.Claims) > 0 && w.Claims[r.Claims[0]].InstanceID == id {
			delete(w.Claims, r.Claims[0])
		}
	case recordLost:
		if r.LeaseOwner == "" {
			delete(w.Records, id)
			maps.DeleteFunc(w.Claims, func(_ ledger.Name, c ledger.Claim) bool { return c.InstanceID == id })
		}
	case foreignObject:
		path := grant.PolicyPath(grant.PolicyName(id, "node"))
		w.Objects[path] = map[string]any{"policy": "# of another owner\n", "name": "x"}
		w.foreign[path] = w.Objects[path]
		delete(w.namesOn, path)
	}
}

// entry returns the path of an instance's accesslist entry.
func entry(id string) string { return "auth/" + realm.AuthMount + "/identity-accesslist/" + id }

// under returns the paths of ours that bear an instance's ID, sorted, without its accesslist entry.
func (w *world) under(id string) []string {
	var paths []string
	for path := range w.Objects {
		if strings.Contains(path, id) && w.foreign[path] == nil && path != entry(id) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}
