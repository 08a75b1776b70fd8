package observe

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// firstBit is the lowest octave with buckets of its own: 2^7 µs, an eighth of a millisecond; one bucket holds all shorter
	// times.
	firstBit = 7
	// octaves reaches to 2^31 µs, 36 minutes: longer than any invocation.
	octaves = 24
	// perOctave is the number of buckets of equal width in an octave: a value is exact to within an eighth.
	perOctave = 4
	buckets   = 1 + octaves*perOctave
)

// Histogram counts durations in buckets of fixed bounds, so that any number of them needs the same memory and fits in one line
// of metrics. The zero value is ready; it is safe for concurrent use, and Add allocates nothing.
type Histogram struct {
	counts [buckets]atomic.Int64
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) { h.counts[bucketOf(d)].Add(1) }

func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	bit := bits.Len64(us) - 1
	if bit < firstBit {
		return 0
	}
	if bit >= firstBit+octaves {
		return buckets - 1
	}
	return 1 + (bit-firstBit)*perOctave + int(us>>(bit-2)&(perOctave-1)) // the last term is 0 to 3
}

// middle returns the value that represents a bucket, in milliseconds.
func middle(bucket int) float64 {
	if bucket == 0 {
		return float64(uint64(1)<<firstBit) / 2 / 1000
	}
	low := uint64(1) << ((bucket-1)/perOctave + firstBit)
	quarter := uint64((bucket - 1) % perOctave)
	return (float64(low) + (float64(quarter)+0.5)*float64(low)/perOctave) / 1000
}

// values is a histogram in CloudWatch's embedded format.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
type values struct {
	Values []float64
	Counts []int64
}

// drain returns the counts and clears them.
func (h *Histogram) drain() values {
	var v values
	for i := range h.counts {
		if n := h.counts[i].Swap(0); n > 0 {
			v.Values = append(v.Values, middle(i))
			v.Counts = append(v.Counts, n)
		}
	}
	return v
}
