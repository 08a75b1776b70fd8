package observe

import (
	"sync/atomic"
	"time"
)

// Calls measures the calls to one service. The clients that make them outlive an invocation, so each invocation collects the
// measurements when it ends (Metrics.Collect). The zero value is ready; it is safe for concurrent use.
type Calls struct {
	latency   Histogram
	throttles atomic.Int64
}

// Observe adds one call: its duration, and whether the service refused it because of a rate limit.
func (c *Calls) Observe(took time.Duration, throttled bool) {
	c.latency.Add(took)
	if throttled {
		c.throttles.Add(1)
	}
}

// Services are the calls of a function's process, by service.
type Services struct {
	Vault, EC2, DynamoDB Calls
}

// Collect moves the measurements since the last Collect into m. For a service with calls it adds the number of throttles even
// if it is 0, so that an alarm sees zeros and no gap.
func (m *Metrics) Collect(s *Services) {
	for _, c := range []struct {
		from               *Calls
		latency, throttles string
	}{
		{&s.Vault, VaultLatency, VaultThrottles},
		{&s.EC2, EC2Latency, EC2Throttles},
		{&s.DynamoDB, DynamoDBLatency, DynamoDBThrottles},
	} {
		v := c.from.latency.drain()
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
