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

// logsIn has instance A log in by its nonce, which makes its accesslist entry.
func (w *world) logsIn() { w.Objects[entryA] = map[string]any{} }

// reset runs a request and fails unless it deletes the entry, keeps the grant, and asks for another run or not.
func (w *world) reset(c *converge.Converger, req converge.Request, again bool) {
	w.t.Helper()
	w.logsIn()
	done, err := w.handleAt(c, req)
	if done.Action != converge.LoginReset || errors.Is(err, converge.ErrReplacing) != again || (err != nil && !again) {
		w.t.Errorf("%s: want the login reset, and another run: %v; got %+v, %v", req.Volume, again, done, err)
	}
	if w.Objects[entryA] != nil {
		w.t.Errorf("%s: the accesslist entry is left: Vault refuses the new system, which has no nonce", req.Volume)
	}
	w.wantGranted(idA)
}

func TestNewVolume_ResetsTheLoginKeepsTheGrant(t *testing.T) {
	w, c := provisioned(t, both)
	at := w.clock()
	w.reset(c, w.volume(converge.VolumeReplacing, at), true)
	w.pass(30 * time.Minute) // another hook drains the old system, which logs in again
	w.reset(c, w.volume(converge.VolumeReplacing, at), true)
	w.pass(10 * time.Minute)
	w.reset(c, w.volume(converge.VolumeReplaced, at), false)
	w.logsIn() // the new system
	w.mustAt(c, w.volume(converge.VolumeReplaced, at), converge.LeftAlone)
	if w.Objects[entryA] == nil {
		t.Error("a second delivery of the same event reset the new system's login")
	}
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
	at := w.clock()
	w.breakOff(c, w.volume(converge.VolumeReplacing, at), "vault delete", errDown)
	w.reset(c, w.volume(converge.VolumeReplaced, at), false)
}
