package observe

import (
	"sync/atomic"
	"time"
)

// Calls measures the calls to one service. The clients that make them outlive an invocation; each invocation takes what
// was gathered when it ends (Metrics.Take). The zero value is ready; it is safe for concurrent use.
type Calls struct {
	latency   Histogram
	throttles atomic.Int64
}

// Call notes one call: how long it took to its answer, and whether the service refused it for being called too often.
func (c *Calls) Call(took time.Duration, throttled bool) {
	c.latency.Add(took)
	if throttled {
		c.throttles.Add(1)
	}
}

// Services are the calls of a function's process, by the service.
type Services struct {
	Vault, EC2, DynamoDB Calls
}

// Take moves into m what the services' calls gathered since the last time. Throttles are told when there were calls, so
// that an alarm sees zeros and no gap.
func (m *Metrics) Take(s *Services) {
	for _, c := range []struct {
		from               *Calls
		latency, throttles string
	}{
		{&s.Vault, VaultLatency, VaultThrottles},
		{&s.EC2, EC2Latency, EC2Throttles},
		{&s.DynamoDB, DynamoDBLatency, DynamoDBThrottles},
	} {
		v := c.from.latency.take()
		if len(v.Values) == 0 {
			continue
		}
		m.mu.Lock()
		if m.histograms == nil {
			m.histograms = map[string]values{}
		}
		m.histograms[c.latency] = v
		m.mu.Unlock()
		m.Add(c.throttles, int(c.from.throttles.Swap(0)))
	}
}
