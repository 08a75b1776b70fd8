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

// sampleEvery is short beside the time between two garbage collections, in which the heap grows.
const sampleEvery = 10 * time.Millisecond

// memory samples the memory use of this process.
type memory struct {
	stop chan struct{}
	most chan uint64
}

func watchMemory() *memory {
	m := &memory{stop: make(chan struct{}), most: make(chan uint64)}
	go func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		// Live objects and garbage not collected yet: together the memory that a process needs at once.
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

// peak ends the sampling and returns the peaks in bytes. rss is the kernel's own record, 0 if it cannot be read.
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
