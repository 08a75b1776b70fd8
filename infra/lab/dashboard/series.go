package dashboard

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/alarms"
)

// statistic returns a statistic of values; 0 without values. A percentile is the least value that so many percent of all do not
// exceed. An unknown statistic is an error.
func statistic(stat string, values []Value) (float64, error) {
	sorted := slices.SortedFunc(slices.Values(values), func(a, b Value) int { return cmp.Compare(a.Value, b.Value) })
	sum, count := 0.0, 0
	for _, v := range sorted {
		sum += v.Value * float64(v.Count)
		count += v.Count
	}
	switch percent, isPercentile := strings.CutPrefix(stat, "p"); {
	case stat == "Sum":
		return sum, nil
	case stat == "Maximum" && count == 0:
		return 0, nil
	case stat == "Maximum":
		return sorted[len(sorted)-1].Value, nil
	case isPercentile:
		p, err := strconv.ParseFloat(percent, 64)
		if err != nil || p <= 0 || p > 100 {
			return 0, fmt.Errorf("the percentile %q is not a number up to 100", stat)
		}
		rank := int(math.Ceil(p / 100 * float64(count)))
		for _, v := range sorted {
			if rank -= v.Count; rank <= 0 {
				return v.Value, nil
			}
		}
		return 0, nil
	}
	return 0, fmt.Errorf("the statistic %q is not implemented", stat)
}

// point is a series' value in the period that begins at a drawn time.
type point struct {
	at    time.Duration
	value float64
}

// points returns the points of a series, one for each period of seconds with a sample, in the order of time.
func (r Recording) points(s Series, period int) ([]point, error) {
	length := time.Duration(period) * time.Second
	values := map[time.Duration][]Value{}
	var begins []time.Duration
	for _, sample := range r.Samples {
		if sample.Metric != s.Metric {
			continue
		}
		begin := (sample.At * time.Duration(r.Scale)).Truncate(length)
		if values[begin] == nil {
			begins = append(begins, begin)
		}
		values[begin] = append(values[begin], sample.Values...)
	}
	slices.Sort(begins)
	out := make([]point, len(begins))
	for i, begin := range begins {
		value, err := statistic(s.Stat, values[begin])
		if err != nil {
			return nil, err
		}
		out[i] = point{begin, value}
	}
	return out, nil
}

// wentOff reports whether an alarm went off in the scene, evaluated in each drawn minute.
func (r Recording) wentOff(a alarms.Alarm) bool {
	stream := alarms.Stream{}
	watched := a.Metrics()
	for _, s := range r.Samples {
		if !slices.Contains(watched, s.Metric) {
			continue
		}
		minute := int(s.At * time.Duration(r.Scale) / time.Minute)
		for _, v := range s.Values {
			for range v.Count {
				stream[s.Metric] = append(stream[s.Metric], alarms.Sample{Minute: minute, Value: v.Value})
			}
		}
	}
	for _, samples := range stream {
		slices.SortStableFunc(samples, func(a, b alarms.Sample) int { return a.Minute - b.Minute })
	}
	return slices.ContainsFunc(a.Walk(stream, int(r.Shown()/time.Minute), alarms.Reading{}), func(c alarms.Change) bool { return c.To == alarms.Alarming })
}
