package converge_test

import (
	"errors"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const entryA = "auth/aws/identity-accesslist/" + idA

// volume returns the request of a root volume's replacement.
func (w *world) volume(v converge.Volume, at time.Time) converge.Request {
	req := request(idA, facts.Running, at)
	req.Volume = v
	return req
}

// logsIn has a system of instance A log in for the first time, which makes its accesslist entry.
func (w *world) logsIn() {
	w.Objects[entryA] = map[string]any{"creation_time": w.clock().UTC().Format(time.RFC3339Nano)}
}

// attach has EC2 show a root volume that is attached now.
func (w *world) attach() { w.show(idA, func(f *facts.Instance) { f.RootAttachedAt = w.clock() }) }

// wantEntry runs a request and fails unless it leaves the accesslist entry or not, keeps the grant, and asks for another run or not.
func (w *world) wantEntry(c *converge.Converger, req converge.Request, left, again bool, why string) {
	w.t.Helper()
	done, err := w.handleAt(c, req)
	isReset := done.Action == converge.LoginReset
	if errors.Is(err, converge.ErrReplacing) != again || (err != nil && !again) || (w.Objects[entryA] != nil) != left || (isReset && left) {
		w.t.Errorf("%s: want the entry left: %v, and another run: %v; got %v, %+v, %v", why, left, again, w.Objects[entryA], done, err)
	}
	entry, found := w.Objects[entryA]
	delete(w.Objects, entryA) // which is not of the grant
	w.wantGranted(idA)
	if found {
		w.Objects[entryA] = entry
	}
}

// TestNewVolume_ResetsTheOldSystemsLoginOnly tells a whole replacement. The entry of the new system must stay: while none exists,
// anyone with the identity document may log in.
func TestNewVolume_ResetsTheOldSystemsLoginOnly(t *testing.T) {
	w, c := provisioned(t, both)
	w.attach()
	w.pass(time.Hour)
	w.logsIn()
	w.pass(time.Hour)
	at := w.clock()
	replacing, replaced := w.volume(converge.VolumeReplacing, at), w.volume(converge.VolumeReplaced, at)
	w.wantEntry(c, replacing, true, true, "before the replacement")
	w.pass(10 * time.Minute)
	w.logsIn() // the old system again, with another nonce
	w.pass(10 * time.Minute)
	w.wantEntry(c, replacing, true, true, "EC2 still shows the old volume")
	w.attach()
	w.pass(10 * time.Second)
	w.wantEntry(c, replacing, false, true, "the new volume is attached")
	w.pass(20 * time.Second)
	w.logsIn() // the new system
	w.wantEntry(c, replacing, true, true, "the new system has logged in")
	w.pass(2 * time.Minute)
	w.wantEntry(c, replaced, true, false, "the replacement is over")
	w.mustAt(c, replaced, converge.LeftAlone)
	if w.Objects[entryA] == nil {
		t.Error("a second delivery of the same event reset the new system's login")
	}
}

// TestNewVolume_ComparesClocksWithAMargin has an entry from around the time at which the new volume was attached.
func TestNewVolume_ComparesClocksWithAMargin(t *testing.T) {
	for before, left := range map[time.Duration]bool{2 * time.Minute: false, time.Minute + time.Second: false, time.Minute: true, 0: true, -time.Second: true} {
		w, c := provisioned(t, both)
		at := w.clock()
		w.pass(10 * time.Minute)
		w.logsIn()
		w.show(idA, func(f *facts.Instance) { f.RootAttachedAt = w.clock().Add(before) })
		w.wantEntry(c, w.volume(converge.VolumeReplacing, at), left, true, before.String()+" older than the volume")
	}
}

func TestNewVolume_EntryOfUnknownAgeStays(t *testing.T) {
	w, c := provisioned(t, both)
	at := w.clock()
	w.Objects[entryA] = map[string]any{"creation_time": "yesterday"}
	w.attach()
	w.wantFault(c, w.volume(converge.VolumeReplacing, at), fault.Refuse, "an entry without a time", "by hand")
	if w.Objects[entryA] == nil {
		t.Error("an entry of unknown age was deleted: it may be the new system's")
	}
}

// TestNewVolume_WaitsUntilEC2ShowsIt has Auto Scaling done before EC2's answers show the new volume, and then a refresh that was
// cancelled: no new volume ever comes.
func TestNewVolume_WaitsUntilEC2ShowsIt(t *testing.T) {
	w, c := provisioned(t, both)
	w.attach()
	w.pass(time.Hour)
	w.logsIn()
	w.pass(time.Hour)
	at := w.clock()
	w.wantEntry(c, w.volume(converge.VolumeReplacing, at), true, true, "before the replacement")
	w.wantFault(c, w.volume(converge.VolumeReplaced, at), fault.Retry, "EC2 is behind", "does not show it yet")
	w.pass(converge.Grace)
	w.wantEntry(c, w.volume(converge.VolumeReplaced, at), true, false, "the refresh was cancelled")
}

func TestNewVolume_NeedsAutoScalingsWord(t *testing.T) {
	early, late := time.Minute, converge.Grace
	for name, row := range map[string]struct {
		change func(*ledger.Record)
		volume converge.Volume
		after  time.Duration
		kind   string // of the fault; empty for left alone
	}{
		"an event alone, at first":          {func(*ledger.Record) {}, converge.VolumeReplaced, early, "retry"},
		"an event alone":                    {func(*ledger.Record) {}, converge.VolumeReplaced, late, ""},
		"seen long ago":                     {func(r *ledger.Record) { r.ReplacingSince = new(start.Add(-2 * time.Hour)) }, converge.VolumeReplaced, late, ""},
		"an iam login, which has no nonce":  {func(r *ledger.Record) { r.LoginType = "iam" }, converge.VolumeReplacing, early, ""},
		"no grant":                          {func(r *ledger.Record) { r.State = ledger.Refused }, converge.VolumeReplacing, early, ""},
		"recorded in another account":       {func(r *ledger.Record) { r.Account = "210987654321" }, converge.VolumeReplacing, early, "refuse"},
		"another run works on the instance": {func(r *ledger.Record) { r.LeaseOwner, r.LeaseExpiresAt = "x", start.Add(time.Hour).UnixMilli() }, converge.VolumeReplacing, early, "retry"},
	} {
		w, c := provisioned(t, both)
		w.logsIn()
		w.edit(row.change)
		req := w.volume(row.volume, start)
		w.pass(row.after)
		w.show(idA, func(f *facts.Instance) { f.RootAttachedAt = start.Add(time.Hour) }) // by its age the entry would go
		done, err := w.handleAt(c, req)
		kind := ""
		if err != nil {
			kind = fault.KindOf(err).String()
		}
		if kind != row.kind || (err == nil && done.Action != converge.LeftAlone) {
			t.Errorf("%s: want %q, got %+v, %v", name, row.kind, done, err)
		}
		if w.Objects[entryA] == nil {
			t.Errorf("%s: the accesslist entry was deleted: anyone with the identity document may log in", name)
		}
	}
}

func TestNewVolume_SurvivesABreak(t *testing.T) {
	w, c := provisioned(t, both)
	w.logsIn()
	w.pass(time.Hour)
	at := w.clock()
	w.attach()
	w.breakOff(c, w.volume(converge.VolumeReplacing, at), "vault delete", errDown)
	w.wantEntry(c, w.volume(converge.VolumeReplaced, at), false, false, "the next run")
}
