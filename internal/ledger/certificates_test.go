package ledger

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestCertificates_SurvivePacking(t *testing.T) {
	end := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	list := []Certificate{
		{Mount: "alice/pki/k8s", Serial: "\x00\x01\xff", Until: end, Revoked: true},
		{Mount: "alice/pki/etcd", Serial: strings.Repeat("s", 20), Until: end.Add(time.Hour)},
		{Mount: "alice/pki/k8s", Serial: "", Until: time.Unix(0, 0).UTC()},
		{Mount: "alice/pki/k8s", Serial: "late", Until: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
	}
	packed := packCertificates(list)
	got, err := packed.unpack()
	list[3].Until = time.Unix(1<<32-1, 0).UTC() // the latest that is kept: the year 2106
	if err != nil || !reflect.DeepEqual(got.List, list) {
		t.Errorf("want %v, got %v, %v", list, got.List, err)
	}
	if n := len(packCertificates([]Certificate{list[1]}).Packed); n > 27 {
		t.Errorf("an entry takes %d bytes, so that %d of them do not fit into an item of 400 KB", n, MaxCertificates)
	}
	for n := range packed.Packed {
		broken := packed
		broken.Packed = packed.Packed[:n]
		if cut, err := broken.unpack(); err == nil && len(cut.List) >= len(list) {
			t.Errorf("cut after %d bytes it has all %d certificates", n, len(cut.List))
		}
	}
	packed.Mounts = nil
	if _, err := packed.unpack(); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("want a certificate of an unknown mount refused with the next step, got %v", err)
	}
}
