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

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// world is everything outside, in memory: EC2, Vault and the ledger. Its time is that of a testing/synctest bubble: it
// goes on only when nothing else does. What breaks a rule of rules_test.go is kept in broken.
type world struct {
	*vaulttest.Vault
	*ledgertest.Table

	mu      sync.Mutex
	ec2     map[string]facts.Instance
	history map[string][]version
	logins  []login // under way
	// loggedIn are the instances whose logins have ended, by alias, with whether their auth role was gone by then.
	loggedIn map[vaulttest.Alias]entity
	// lateEntry is the same of the last login of an instance.
	lateEntry map[string]bool
	bears     map[string][]ledger.Name
	borne     map[ledger.Name]map[string]time.Time // when an instance last could get a certificate with a name
	foreign   map[string]map[string]any
	// ended are instances whose removal was seen through.
	ended map[string]bool
	// leaving are those that their Auto Scaling group terminates while EC2 shows them as running; left those of them whose
	// removal was seen through, by when they were launched.
	leaving map[string]bool
	left    map[string]time.Time
	// spoiled says of instances in what ways somebody has spoiled them by hand, as bits.
	spoiled map[string]int
	broken  []string

	processes int // so far
}

// entity is what a login leaves: its tokens live as long as it does. late tells that the auth role was gone when the
// login ended.
type entity struct {
	instanceID string
	late       bool
}

type login struct {
	vaulttest.Login
	roleID any
}

// version is what an instance was from a moment on; absent from EC2's answers where found is false.
type version struct {
	found bool
	facts facts.Instance
	from  time.Time
	want  func() map[string]string // path to digest
	fits  bool                     // one profile, or several: it is of our concern
	// leaving tells that its group terminates it.
	leaving bool
}

var (
	here  = facts.Place{Account: "123456789012", Region: "us-east-1"}
	realm = grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"}
)

const (
	tick  = 5 * time.Millisecond // of each call
	young = 10 * time.Minute     // what EC2's answers may lag behind, by lifecycle and reconcile
)

// profiles are three: a name by EC2, a name by tag with a policy that outlives the grant, and one that fits a part of
// the first's instances as well.
var profiles = sync.OnceValue(func() *grant.Set {
	const policy = "{{ pkiAccess \"server\" }}\n\npath \"auth/token/lookup-self\" {\n  capabilities = [\"read\"]\n}\n"
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	set, err := grant.Load(fstest.MapFS{
		"worker/profile.yaml": file(`
name: sim-worker
match: {iam_role_arn: "arn:aws:iam::*:role/worker"}
base_path: sim
fqdn: "{{ .PrivateDNSName }}"
auth: {type: ec2, token_ttl: 1h, token_max_ttl: 24h, bind_token_to_instance_ip: true}
outputs:
  - {name: node, type: policy, template: policy.tmpl}
  - {name: server, type: pki-role, path: pki/roles, template: role.tmpl}
  - {name: host, type: generic, path: ssh/roles, template: host.tmpl}
`),
		"worker/policy.tmpl": file(policy),
		"worker/role.tmpl":   file(`{"max_ttl": "24h", "key_type": "ec", "key_bits": 256}`),
		"worker/host.tmpl":   file(`{"allowed_users": "{{ .FQDN }}"}`),
		"named/profile.yaml": file(`
name: sim-named
match: {iam_role_arn: "arn:aws:iam::*:role/named"}
base_path: sim
fqdn: "{{ .Tag \"name\" }}.sim.test"
fqdn_suffixes: [sim.test]
auth: {type: ec2, token_ttl: 1h, token_max_ttl: 24h, bind_token_to_instance_ip: true, extra_policies: [shared]}
outputs:
  - {name: node, type: policy, template: policy.tmpl}
  - {name: server, type: pki-role, path: pki/roles, template: role.tmpl}
`),
		"named/policy.tmpl": file(policy),
		"named/role.tmpl":   file(`{"max_ttl": "24h", "key_type": "ec", "key_bits": 256}`),
		"special/profile.yaml": file(`
name: sim-special
match: {iam_role_arn: "arn:aws:iam::*:role/worker", tags: {special: "yes"}}
base_path: sim
fqdn: "{{ .PrivateDNSName }}"
auth: {type: ec2, token_ttl: 1h, token_max_ttl: 24h, bind_token_to_instance_ip: true}
outputs:
  - {name: node, type: policy, template: policy.tmpl}
  - {name: server, type: pki-role, path: pki/roles, template: role.tmpl}
`),
		"special/policy.tmpl": file(policy),
		"special/role.tmpl":   file(`{"max_ttl": "24h", "key_type": "ec", "key_bits": 256}`),
	})
	if err != nil {
		panic(err)
	}
	return set
})

func newWorld() *world {
	w := &world{
		Vault: vaulttest.New(), Table: ledgertest.New(), loggedIn: map[vaulttest.Alias]entity{}, lateEntry: map[string]bool{}, ec2: map[string]facts.Instance{}, history: map[string][]version{},
		bears: map[string][]ledger.Name{}, borne: map[ledger.Name]map[string]time.Time{}, foreign: map[string]map[string]any{}, spoiled: map[string]int{}, ended: map[string]bool{},
		leaving: map[string]bool{}, left: map[string]time.Time{},
	}
	w.EC2Alias = "role_id"
	return w
}

// id is that of the n-th instance.
func id(n int) string { return fmt.Sprintf("i-%017x", 0xabc000+n) }

// worker is the n-th instance as it is pending: EC2 gives its DNS name when it runs.
func worker(n int) facts.Instance {
	return facts.Instance{
		ID: id(n), State: facts.Pending, Account: here.Account, Region: here.Region, VPCID: "vpc-0a1b2c3d",
		IPv4s:                 []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(n + 1)})},
		IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/worker", IAMRoleARN: "arn:aws:iam::123456789012:role/worker",
	}
}

// named is one whose name comes from a tag.
func named(n int, name string) facts.Instance {
	f := worker(n)
	f.IAMInstanceProfileARN, f.IAMRoleARN = "arn:aws:iam::123456789012:instance-profile/named", "arn:aws:iam::123456789012:role/named"
	f.Tags = map[string]string{"name": name}
	return f
}

// become has EC2 show an instance as f from now on.
func (w *world) become(f facts.Instance) {
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

// turn changes the state of an instance and gives the event that AWS would send.
func (w *world) turn(id string, state facts.State) event.Event {
	f := w.ec2[id]
	if f.State == facts.Stopped && state == facts.Running {
		f.LaunchTime = time.Now() // a new life, that its group has nothing against
		if w.leaving[id] {
			// One that leaves gives its names up at once, whatever certificates it has: SECURITY.md says so.
			for _, bearers := range w.borne {
				delete(bearers, id)
			}
		}
		delete(w.leaving, id)
	}
	f.State = state
	w.become(f)
	return w.told(id, state)
}

// leave has an instance's group terminate it: EC2 shows it as running still. It gives the event of the group's hook.
func (w *world) leave(id string) event.Event {
	w.leaving[id] = true
	w.become(w.ec2[id])
	return w.hooked(id)
}

// hooked is the event of a terminate hook, of now.
func (w *world) hooked(id string) event.Event {
	t := w.told(id, facts.Running)
	t.Hook = &event.Hook{Terminating: true}
	return t
}

// told is an event of now.
func (w *world) told(id string, state facts.State) event.Event {
	return event.Event{Ref: facts.Ref{ID: id, Place: facts.Place{Account: here.Account, Region: here.Region}}, State: state, Time: time.Now().Truncate(time.Second)}
}

// forget takes an instance that is gone out of EC2's answers.
func (w *world) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ec2, id)
	w.history[id] = append(w.history[id], version{from: time.Now()})
}

// alive tells whether an instance may start or go on.
func (w *world) alive(id string) bool {
	f, ok := w.ec2[id]
	return ok && f.State != facts.ShuttingDown && f.State != facts.Terminated
}

// beginLogin does what Vault does first: it reads the auth role and asks EC2.
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

// endLogins does what Vault does last: it makes the entity, the accesslist entry and the token.
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

// What a hand may do in Vault and in the ledger.
const (
	objectGone = iota
	lockLoosened
	claimLost
	recordLost // and the claims with it
	foreignObject
	ways
)

// spoil does one of these.
func (w *world) spoil(id string, what int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spoiled[id] |= 1 << what
	r := w.Records[id]
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
		w.Objects[path] = map[string]any{"policy": "# somebody else's\n", "name": "x"}
		w.foreign[path] = w.Objects[path]
		delete(w.bears, path)
	}
}

// entry returns the path of an instance's accesslist entry.
func entry(id string) string { return "auth/" + realm.AuthMount + "/identity-accesslist/" + id }

// under is what of ours stands in Vault under an instance's name, sorted.
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
