package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

func TestBatch_BadRecordsDelayNoOther(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision}})
	f := l.Functions[provision]
	all := launchAll(t, 7)
	good, failing, slow, refused := all[:4], all[4], all[5], all[6]
	young := fleet.Instance{ID: "i-0badbadbadbadbad1", AccountID: world.AccountID, Region: world.Region}
	l.SetFault(func(c tap.Call) *tap.Fault {
		switch {
		case strings.Contains(c.Path, failing.ID):
			return &tap.Fault{Status: 500, Body: []byte(`{"errors":["internal error"]}`)}
		case strings.Contains(c.Path, slow.ID):
			return &tap.Fault{Delay: 11 * time.Second} // past the limit of a call
		case strings.Contains(c.Path, refused.ID) && strings.HasPrefix(c.Action, "PUT "):
			return &tap.Fault{Status: 400, Body: []byte(`{"errors":["no"]}`)}
		}
		return nil
	})
	event := func(i fleet.Instance) []byte { return fleet.Event(i, "running", time.Now()) }
	bodies := [][]byte{
		[]byte("{"), event(failing), event(good[0]), event(slow), event(good[1]), []byte(`{"detail-type":"Tag Change on Resource","source":"aws.tag"}`),
		event(refused), event(good[2]), event(young), []byte("\x00\xff"), event(good[3]), event(good[0]),
	}
	again, result := labtest.Deliver(t, f, bodies...)
	if want := []int{1, 3, 8}; !slices.Equal(again, want) {
		t.Errorf("want back only the messages %v, which may yet succeed (the failing, the slow and the one EC2 does not show), got %v, %v\nlogs:\n%s", want, again, result.Err(), lastOf(f.Logs()))
	}
	for _, i := range good {
		wantGranted(t, i)
	}
	for _, counted := range []string{`"Malformed":2`, `"Refused":1`, `"Retried":3`, `"Provisioned":4`} {
		logged(t, f, counted)
	}
	for _, i := range []fleet.Instance{failing, slow, refused} {
		nothingHalfMade(t, i)
	}
	l.SetFault(nil)
	for _, i := range []fleet.Instance{failing, slow, refused} {
		untilDone(t, f, i, event(i))
		wantGranted(t, i)
	}
}

// In an invocation of 25 s, work may begin only in the first 5. Vault is so slow that eight concurrent instances take longer,
// and the rest must wait for the next delivery.
func TestBatch_LateWorkReturnsUntouched(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision}, Timeout: 25 * time.Second})
	f := l.Functions[provision]
	all := launchAll(t, 12)
	bodies := make([][]byte, len(all))
	for n, i := range all {
		bodies[n] = fleet.Event(i, "running", time.Now())
	}
	l.Taps.Vault.SetFault(func(tap.Call) *tap.Fault { return &tap.Fault{Delay: 1500 * time.Millisecond} })
	again, result := labtest.Deliver(t, f, bodies...)
	if err := result.Err(); err != nil {
		t.Fatalf("want the batch answered before its deadline, got %v after %s", err, result.Duration)
	}
	if len(again) != len(all)-convergeBound {
		t.Errorf("want back the %d messages that could not begin, got %v", len(all)-convergeBound, again)
	}
	l.SetFault(nil)
	for n, i := range all {
		if !slices.Contains(again, n) {
			wantGranted(t, i)
			continue
		}
		if items, err := world.ItemsOf(t.Context(), i.ID); err != nil || len(items) > 0 || len(objects(t, i)) > 0 {
			t.Errorf("want nothing begun for a message that goes back, got %q, %v", items, err)
		}
	}
	logged(t, f, "less than 20s is left")
	var rest [][]byte
	for _, n := range again {
		rest = append(rest, bodies[n])
	}
	if again, _ := labtest.Deliver(t, f, rest...); len(again) > 0 {
		t.Errorf("want the next delivery to finish the rest, got %v back\nlogs:\n%s", again, lastOf(f.Logs()))
	}
	for _, i := range all {
		wantGranted(t, i)
	}
}
