package certificates

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// bench is a store and a Vault in memory, with faults.
type bench struct {
	mu      sync.Mutex
	items   map[string][]ledger.Certificate
	changed int              // puts that another run forestalls
	fails   map[string]error // by serial number
	revoked []string
	asked   int // for the record
	granted int // the answer to this one, and each later one, is that the instance has a grant again
}

func (b *bench) Certificates(_ context.Context, owner string) (ledger.Certificates, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return ledger.Certificates{List: slices.Clone(b.items[owner])}, nil
}

func (b *bench) PutCertificates(_ context.Context, owner string, _ ledger.Certificates, list []ledger.Certificate, _ bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed > 0 {
		b.changed--
		return fault.New(fault.Retry, ledger.ErrChanged)
	}
	b.items[owner] = slices.Clone(list)
	return nil
}

func (b *bench) RevokeCertificate(_ context.Context, _, serial string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fails[serial]; err != nil {
		return false, err
	}
	b.revoked = append(b.revoked, serial)
	return true, nil
}

func (b *bench) Get(_ context.Context, id string) (*ledger.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if b.granted > 0 && b.asked >= b.granted {
		return &ledger.Record{InstanceID: id, State: ledger.Active}, nil
	}
	return &ledger.Record{InstanceID: id, State: ledger.Deleted}, nil
}

func (b *bench) revoker() Revoker {
	return Revoker{Vault: b, Store: b, Now: func() time.Time { return noon }}
}

func serial(n int) string { return fmt.Sprintf("%08d", n) }

func certificatesOf(n int, revoked bool) []ledger.Certificate {
	list := make([]ledger.Certificate, n)
	for i := range list {
		list[i] = ledger.Certificate{Mount: mount, Serial: serial(i), Until: noon.Add(time.Hour), Revoked: revoked}
	}
	return list
}

func TestRevoke_KeepsWhatWasDoneBeforeAFault(t *testing.T) {
	b := &bench{items: map[string][]ledger.Certificate{a: certificatesOf(250, false)}, fails: map[string]error{}}
	b.items[a][0].Until = noon // it has ended
	b.items[a][1].Revoked = true
	b.fails[Serial(serial(120))] = errors.New("sealed")
	b.changed = 1
	done, err := b.revoker().revoke(t.Context(), a)
	if err == nil || done.Certificates != 119 {
		t.Fatalf("want the 119 others of the first three parts revoked, and the error, got %+v, %v", done, err)
	}
	delete(b.fails, Serial(serial(120)))
	if done, err = b.revoker().revoke(t.Context(), a); err != nil || done.Certificates != 129 {
		t.Errorf("want the 129 that were left, and none a second time, got %+v, %v", done, err)
	}
	if slices.Contains(b.revoked, Serial(serial(0))) || slices.Contains(b.revoked, Serial(serial(1))) || len(b.revoked) != 248 {
		t.Errorf("want no certificate revoked that has ended or is revoked, got %d", len(b.revoked))
	}
}

// A removal shares its invocation with others: an instance with very many certificates must not hold it, and each call gets on.
func TestRevoke_EndsWithItsLimit(t *testing.T) {
	b := &bench{items: map[string][]ledger.Certificate{a: certificatesOf(100, false)}}
	for calls := 1; ; calls++ {
		now := noon
		r := b.revoker()
		r.Limit = time.Second
		r.Now = func() time.Time { return now }
		r.Vault = slow{b, func() { now = now.Add(time.Second) }}
		done, err := r.revoke(t.Context(), a)
		if err == nil {
			if calls != 3 || len(b.revoked) != 100 {
				t.Errorf("want 40, 40 and 20 revoked in three calls, got %d in %d", len(b.revoked), calls)
			}
			return
		}
		if !errors.Is(err, ErrLeft) || done.Certificates != 40 {
			t.Fatalf("call %d: want one part revoked, and word of the rest, got %+v, %v", calls, done, err)
		}
	}
}

// An instance that got a grant again keeps what it got with it.
func TestRevoke_StopsAtANewGrant(t *testing.T) {
	b := &bench{items: map[string][]ledger.Certificate{a: certificatesOf(100, false)}, granted: 2}
	if done, err := b.revoker().revoke(t.Context(), a); err != nil || done.Certificates != perWrite {
		t.Errorf("want no part revoked after the grant, got %+v, %v", done, err)
	}
}

// slow takes time for each certificate.
type slow struct {
	*bench
	wait func()
}

func (s slow) RevokeCertificate(ctx context.Context, mount, serial string) (bool, error) {
	s.mu.Lock()
	s.wait()
	s.mu.Unlock()
	return s.bench.RevokeCertificate(ctx, mount, serial)
}

func TestRevoke_OfAnUnmountedMountIsOver(t *testing.T) {
	b := &bench{items: map[string][]ledger.Certificate{a: certificatesOf(1, false)}}
	b.fails = map[string]error{Serial(serial(0)): fmt.Errorf("writing: %w", vault.ErrNotMounted)}
	done, err := b.revoker().revoke(t.Context(), a)
	if err != nil || done.NotStored != 1 || !b.items[a][0].Revoked {
		t.Errorf("want the certificate of a mount that is gone left, and not tried forever, got %+v, %v", done, err)
	}
}

func TestItem_ThatIsFullHidesNoCertificate(t *testing.T) {
	more := []ledger.Certificate{{Mount: mount, Serial: "more", Until: noon}}
	if out, forgotten := withinBounds(certificatesOf(ledger.MaxCertificates-1, false), more); forgotten != 0 || len(out) != ledger.MaxCertificates {
		t.Errorf("want an item filled, got %d, %d forgotten", len(out), forgotten)
	}
	if out, forgotten := withinBounds(certificatesOf(ledger.MaxCertificates, false), more); forgotten != 1 || len(out) != ledger.MaxCertificates {
		t.Errorf("want one forgotten, which the next run reads again, got %d, %d forgotten", len(out), forgotten)
	}
	out, _ := withinBounds(certificatesOf(ledger.MaxCertificates, true), more)
	if len(out) != 1 || out[0].Serial != "more" {
		t.Errorf("want the revoked ones to make room for one that is not, got %d", len(out))
	}
}

func TestSerial_IsReadInEachForm(t *testing.T) {
	for _, text := range []string{"3d:80:91", "3d-80-91", "3D8091"} {
		if raw, ok := parseSerial(text); !ok || Serial(raw) != "3d:80:91" {
			t.Errorf("%s: got %x, %v", text, raw, ok)
		}
	}
	for _, text := range []string{"", ":", "zz", "3d:8", "hmac-sha256:ab", strings.Repeat("ab", 21)} {
		if raw, ok := parseSerial(text); ok {
			t.Errorf("%q: want it refused, got %x", text, raw)
		}
	}
}
