package observe_test

import (
	"bytes"
	"encoding/json"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// vaultCalls are the metrics of the calls to Vault.
type vaultCalls struct {
	VaultLatency struct {
		Values []float64
		Counts []int64
	}
	VaultThrottles *int
}

func collect(t *testing.T, s *observe.Services) vaultCalls {
	t.Helper()
	m := &observe.Metrics{Deployment: "d", Function: "f"}
	m.Collect(s)
	var out bytes.Buffer
	if err := m.Write(&out, time.UnixMilli(1)); err != nil {
		t.Fatal(err)
	}
	var line vaultCalls
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatalf("want one line of JSON, got %q: %v", out.String(), err)
		}
	}
	return line
}

func TestHistogram_IsExactToAnEighth(t *testing.T) {
	for d := 200 * time.Microsecond; d < 20*time.Minute; d = d * 9 / 7 {
		var s observe.Services
		s.Vault.Observe(d, false)
		v := collect(t, &s).VaultLatency
		if len(v.Values) != 1 || len(v.Counts) != 1 || v.Counts[0] != 1 {
			t.Fatalf("%s: want one value counted once, got %+v", d, v)
		}
		want := float64(d.Microseconds()) / 1000
		if off := math.Abs(v.Values[0]-want) / want; off > 0.125 {
			t.Errorf("%s is written as %v ms, %.0f %% off: an alarm on its percentiles would be wrong", d, v.Values[0], 100*off)
		}
	}
}

func TestHistogram_FitsAFleetInOneLine(t *testing.T) {
	var s observe.Services
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 20_000 {
				s.Vault.Observe(time.Duration(i*worker)*time.Millisecond, i == 0)
			}
		})
	}
	s.Vault.Observe(-time.Second, false)
	s.Vault.Observe(1000*time.Hour, false)
	group.Wait()
	line := collect(t, &s)
	total := int64(0)
	for _, n := range line.VaultLatency.Counts {
		total += n
	}
	if total != 8*20_000+2 || len(line.VaultLatency.Values) > 100 || len(line.VaultLatency.Values) != len(line.VaultLatency.Counts) {
		t.Errorf("want 160002 calls in at most 100 values, got %d in %d", total, len(line.VaultLatency.Values))
	}
	if line.VaultThrottles == nil || *line.VaultThrottles != 8 {
		t.Errorf("want 8 throttled calls, got %v", line.VaultThrottles)
	}
	if again := collect(t, &s); len(again.VaultLatency.Values) > 0 || again.VaultThrottles != nil {
		t.Errorf("written a second time: %+v", again)
	}
}

func BenchmarkCall(b *testing.B) {
	var s observe.Services
	b.ReportAllocs()
	for i := range b.N {
		s.Vault.Observe(time.Duration(i)*time.Microsecond, false)
	}
}
