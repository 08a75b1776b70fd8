package bench

import (
	"bufio"
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// sampleEvery is short beside a collection of garbage, between two of which the heap grows.
const sampleEvery = 10 * time.Millisecond

// memory watches how much of it this process takes.
type memory struct {
	stop chan struct{}
	most chan uint64
}

func watchMemory() *memory {
	m := &memory{stop: make(chan struct{}), most: make(chan uint64)}
	go func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		// What lives and what the collector has not come to yet: the measure of what a process needs at once.
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		var most uint64
		for {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64())
			select {
			case <-tick.C:
			case <-m.stop:
				m.most <- most
				return
			}
		}
	}()
	return m
}

// peak ends the watch. The resident size is the kernel's own record, and 0 where there is none to read.
func (m *memory) peak() (heap, rss uint64) {
	close(m.stop)
	heap = <-m.most
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return heap, 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			if err == nil {
				rss = kib << 10
			}
		}
	}
	return heap, rss
}
