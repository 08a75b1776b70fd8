package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// The folders of the profiles: workers have objects in the first one only, etcd's instances in the other two.
const (
	workerFolder  = "alice_cluster/pki/k8s/roles"
	etcdFolder    = "alice_cluster/pki/etcd_k8s/roles"
	overlayFolder = "alice_cluster/pki/etcd_overlay/roles"
)

var errNoMount = fmt.Errorf("listing: status 404: no handler for route: %w", vault.ErrNotMounted)

// etcd returns the n-th instance with the role of etcd.
func etcd(n int) facts.Instance {
	f := worker(n)
	f.IAMRoleARN = strings.Replace(f.IAMRoleARN, "alice-worker", "alice-etcd", 1)
	f.IAMInstanceProfileARN = strings.Replace(f.IAMInstanceProfileARN, "alice-worker", "alice-etcd", 1)
	return f
}

// denied is EC2 with places that cannot be asked.
type denied struct {
	instancetest.EC2
	places []facts.Place
}

var errDenied = errors.New("AccessDenied by a service control policy")

func (e denied) List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	if slices.Contains(e.places, p) {
		return errDenied
	}
	return e.EC2.List(ctx, p, ids, each)
}

func (e denied) Describe(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := e.EC2.Describe(ctx, refs)
	for ref := range out {
		if slices.Contains(e.places, ref.Place) {
			out[ref] = instance.Sighting{Err: errDenied}
		}
	}
	return out
}

// denying has EC2 refuse every call in some places.
func (w *world) denying(places ...facts.Place) func(*Options) {
	return func(o *Options) { o.Instances = denied{w.instances(), places} }
}

// mixed returns a world with five workers and five of etcd, and etcd's instances numbered from 5 on.
func mixed(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 5)
	for n := range 5 {
		w.provision(w.launch(etcd(5 + n)))
	}
	return w
}

// TestPlaces_TroubleStaysInItsPlace has random places and folders fail while instances are gone everywhere.
func TestPlaces_TroubleStaysInItsPlace(t *testing.T) {
	regions := []string{"us-east-1", "eu-west-1"}
	for seed := range uint64(24) {
		random := rand.New(rand.NewPCG(seed, seed))
		w := newWorld(t, 0)
		var broken []facts.Place
		var all []facts.Instance
		for a, account := range []string{here.Account, there.Account} {
			for g, region := range regions {
				p := facts.Place{Account: account, Region: region}
				if random.IntN(3) == 0 {
					broken = append(broken, p)
				}
				for n := range 8 {
					f := worker(100*(2*a+g) + n)
					if random.IntN(2) == 0 {
						f = etcd(100*(2*a+g) + n)
					}
					f.Account, f.Region = account, region
					f.IAMRoleARN = strings.Replace(f.IAMRoleARN, here.Account, account, 1)
					w.provision(w.launch(f))
					all = append(all, f)
				}
			}
		}
		folders := map[string]error{}
		for _, folder := range []string{workerFolder, etcdFolder, overlayFolder} {
			if random.IntN(4) == 0 {
				folders[folder] = []error{errStorage, errNoMount}[random.IntN(2)]
				w.fail["list "+folder] = folders[folder]
			}
		}
		gone := map[string]bool{}
		for _, f := range all {
			if random.IntN(8) == 0 {
				gone[f.ID] = true
				delete(w.ec2, f.ID)
			}
		}
		a := w.reconcile(Input{Mode: Correct}, bothAccounts, inRegions(regions...), w.denying(broken...), func(o *Options) { o.DeleteLimit = 100 })
		held := false
		for _, f := range all {
			isUnseen := slices.Contains(broken, facts.Place{Account: f.Account, Region: f.Region})
			for _, o := range w.Records[f.ID].Objects {
				isUnseen = isUnseen || errors.Is(folders[grant.FolderOf(o.Path)], errStorage)
			}
			wasRemoved := w.Records[f.ID].State == ledger.Deleted
			if want := gone[f.ID] && !isUnseen; wasRemoved != want {
				t.Errorf("seed %d: instance %s of %s: want removed: %v, got %v; broken: %v, %v\n%s", seed, f.ID, f.Region, want, wasRemoved, broken, folders, answerText(a))
			}
			held = held || (gone[f.ID] && isUnseen)
		}
		if held && !a.Blocked {
			t.Errorf("seed %d: want the run blocked, since removals were held back\n%s", seed, answerText(a))
		}
		for _, p := range broken {
			if !slices.ContainsFunc(a.Places, func(t PlaceTrouble) bool { return t.Account == p.Account && t.Region == p.Region && t.Recorded == 8 }) {
				t.Errorf("seed %d: want %s among the places with eight recorded, got %+v", seed, p.Name(), a.Places)
			}
		}
	}
}

// A service control policy denies a region in which nothing was ever granted.
func TestDeniedPlace_WithoutRecordsBlocksNothing(t *testing.T) {
	w := newWorld(t, 10)
	delete(w.ec2, id(1))
	bad := facts.Place{Account: here.Account, Region: "ap-east-1"}
	denying := w.denying(bad)
	twoRegions := inRegions(here.Region, bad.Region)
	a := w.reconcile(Input{Mode: Correct}, denying, twoRegions)
	w.wantRemoved(id(1), "in the other region", a)
	want := PlaceTrouble{Account: bad.Account, Region: bad.Region, Error: errDenied.Error()}
	if a.Blocked || !slices.Equal(a.Places, []PlaceTrouble{want}) {
		t.Errorf("want %+v and no block, got\n%s", want, answerText(a))
	}
	// An object of ours whose instance may be anywhere is held back by it, and that blocks the run.
	untracked := grant.PolicyPath(grant.PolicyName(id(300), "node"))
	w.Objects[untracked] = map[string]any{"policy": grant.Marker{Deployment: w.realm.Deployment, InstanceID: id(300), Profile: "p"}.String()}
	a = w.reconcile(Input{Mode: Correct}, denying, twoRegions)
	want.Withholds = true
	if w.Objects[untracked] == nil || !a.Blocked || !strings.Contains(a.BlockedReason, bad.Name()) || !slices.Equal(a.Places, []PlaceTrouble{want}) {
		t.Errorf("want the object of an unknown place left, and the run blocked by %s, got\n%s", bad.Name(), answerText(a))
	}
}

// A region of an account cannot be listed: its records do not raise what the other region may lose.
func TestDeleteLimit_CountsOnlyListedPlaces(t *testing.T) {
	w := newWorld(t, 10)
	bad := facts.Place{Account: here.Account, Region: "eu-west-1"}
	for n := range 60 {
		f := worker(100 + n)
		f.Region = bad.Region
		w.provision(w.launch(f))
	}
	for n := range alwaysDeleted + 1 {
		delete(w.ec2, id(n))
	}
	a := w.reconcile(Input{Mode: Correct}, w.denying(bad), inRegions(here.Region, bad.Region))
	if !strings.Contains(a.BlockedReason, "6 instances would be removed of 10") || a.Summary.Corrected > 0 {
		t.Errorf("want the limit applied to the ten that were looked at, got\n%s", answerText(a))
	}
	w = mixed(t) // the same with a folder: etcd's five count for nothing
	for n := range 40 {
		w.provision(w.launch(etcd(20 + n)))
	}
	for n := range 6 {
		w.provision(w.launch(worker(80 + n)))
		delete(w.ec2, id(80+n))
	}
	w.fail["list "+etcdFolder] = errStorage
	if a := w.reconcile(Input{Mode: Correct}); !strings.Contains(a.BlockedReason, "6 instances would be removed of 11") || a.Summary.Corrected > 0 {
		t.Errorf("want the limit applied to the eleven workers, got\n%s", answerText(a))
	}
}

func TestUnmountedFolder_HoldsUpNothing(t *testing.T) {
	w := mixed(t)
	for path := range w.Objects {
		if grant.FolderOf(path) == overlayFolder {
			delete(w.Objects, path)
		}
	}
	w.fail["list "+overlayFolder] = errNoMount
	delete(w.ec2, id(0))
	delete(w.ec2, id(5))
	delete(w.Objects, grant.PolicyPath(grant.PolicyName(id(1), "node")))
	a := w.reconcile(Input{Mode: Correct})
	w.wantRemoved(id(0), "of another profile", a)
	w.wantRemoved(id(5), "of the profile itself: below the path there is nothing", a)
	if err := w.granted(id(1)); err != nil || a.Blocked {
		t.Errorf("want the rest repaired and nothing blocked: %v\n%s", err, answerText(a))
	}
	want := PlaceTrouble{Folder: overlayFolder, Recorded: 5, Error: errNoMount.Error()}
	if !slices.Equal(a.Places, []PlaceTrouble{want}) {
		t.Errorf("want %+v, got %+v", want, a.Places)
	}
}

// A mount refuses or hangs: its instances are left, also those in no record, and the others are not held up.
func TestFailedFolder_WithholdsOnlyItsInstances(t *testing.T) {
	for _, force := range []bool{false, true} {
		w := mixed(t)
		w.fail["list "+etcdFolder] = errStorage
		delete(w.ec2, id(0))
		delete(w.ec2, id(5))
		lost := worker(20) // in no record: it may have objects in the folder
		w.makeObjects(lost, w.realm)
		delete(w.Objects, grant.PolicyPath(grant.PolicyName(id(1), "node")))
		a := w.reconcile(Input{Mode: Correct, Force: force})
		w.wantRemoved(id(0), "without objects there", a)
		if err := w.granted(id(1)); err != nil {
			t.Errorf("want the rest repaired: %v\n%s", err, answerText(a))
		}
		if len(w.under(id(5))) == 0 || len(w.under(lost.ID)) == 0 {
			t.Errorf("force %v: want all left that may have objects in %s\n%s", force, etcdFolder, answerText(a))
		}
		if !a.Blocked || !strings.Contains(a.BlockedReason, etcdFolder) || len(a.Places) != 1 || !a.Places[0].Withholds || a.Places[0].Recorded != 5 {
			t.Errorf("force %v: want the run blocked for the folder alone, got %+v\n%s", force, a.Places, answerText(a))
		}
		w.fail["list "+etcdFolder] = nil
		w.now = w.now.Add(time.Hour)
		a = w.reconcile(Input{Mode: Correct})
		w.wantRemoved(id(5), "once the folder can be listed", a)
		if a.Blocked || len(w.under(lost.ID)) > 0 {
			t.Errorf("want all removed once the folder can be listed\n%s", answerText(a))
		}
	}
}

// A mount that also fails each read neither ends the run nor uses up its time.
func TestUnreadableFolder_IsReadOnce(t *testing.T) {
	w := newWorld(t, 3)
	for n := range 3 * maxFailures {
		w.provision(w.launch(etcd(10 + n)))
	}
	delete(w.ec2, id(0))
	w.fail["list "+etcdFolder] = errStorage
	reads := 0
	readFails := func(o *Options) {
		client := w.vault()
		client.Do = func(kind, path string, effect func() error) error {
			return w.do(kind, path, func() error {
				if kind == "read" && grant.FolderOf(path) == etcdFolder {
					reads++
					return errStorage
				}
				return effect()
			})
		}
		o.Vault = client
	}
	a := w.reconcile(Input{Mode: Correct}, readFails)
	w.wantRemoved(id(0), "of another mount", a)
	if reads > readers || a.Summary.Failed != 3*maxFailures {
		t.Errorf("want at most %d reads there and a failed row for each instance, got %d\n%s", readers, reads, answerText(a))
	}
}

func TestTeardown_GoesOnBesideAFailedFolder(t *testing.T) {
	w := mixed(t)
	w.fail["list "+etcdFolder] = errStorage
	a := w.tearDown(Input{})
	if a.Summary.Corrected != 5 || a.Summary.Failed != 5 || !a.Blocked || !strings.Contains(a.BlockedReason, etcdFolder) {
		t.Errorf("want the five workers removed and the folder named\n%s", answerText(a))
	}
	if live := w.live(); len(live) != 5 || live[0] != id(5) {
		t.Errorf("want the instances with objects there left, got %q", live)
	}
	w.fail["list "+etcdFolder] = errNoMount
	if a := w.tearDown(Input{}); a.Blocked || len(w.live()) > 0 || len(a.Places) != 1 {
		t.Errorf("want all removed when the mount is gone\n%s", answerText(a))
	}
}
