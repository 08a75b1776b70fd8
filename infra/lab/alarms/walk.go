package alarms

import "slices"

// State is an alarm's state.
type State string

// The states of an alarm. An alarm is made in InsufficientData.
const (
	InsufficientData State = "INSUFFICIENT_DATA"
	OK               State = "OK"
	Alarming         State = "ALARM"
)

// Sample is a value that was reported in a minute.
type Sample struct {
	Minute int
	Value  float64
}

// Stream are the samples of each metric, in the order of their minutes. A negative minute is before the alarm was made.
type Stream map[Metric][]Sample

// Reading answers what AWS's pages leave open.
type Reading struct {
	// Extra are the periods beyond EvaluationPeriods that CloudWatch retrieves. The pages say that there are some.
	Extra int
	// EmptyStaysEmpty is true if FILL leaves a metric alone that has no point in the whole evaluation range.
	EmptyStaysEmpty bool
}

// Readings are all answers that a test should try.
func Readings() []Reading {
	return []Reading{{0, false}, {2, false}, {0, true}, {2, true}}
}

// Change is a change of an alarm's state. Its actions are then executed.
type Change struct {
	Minute int
	To     State
}

// Walk returns the changes of state of an alarm that is made at minute 0 and evaluated in each minute before end.
func (a *Alarm) Walk(s Stream, end int, r Reading) []Change {
	var changes []Change
	state := InsufficientData
	for minute := range end {
		if next := a.evaluate(a.points(s, minute, r), state); next != state {
			state = next
			changes = append(changes, Change{minute, state})
		}
	}
	return changes
}

// points returns the alarm's points in the evaluation range that ends after a minute, the newest last.
func (a *Alarm) points(s Stream, minute int, r Reading) []point {
	length := a.periods + r.Extra
	columns, empty := map[string][]point{}, map[string]bool{}
	for id, of := range a.series {
		column := make([]point, length)
		empty[id] = true
		for i := range column {
			until := minute + 1 - (length-1-i)*of.minutes
			column[i] = of.statistic(s[of.metric], until-of.minutes, until)
			empty[id] = empty[id] && !column[i].ok
		}
		columns[id] = column
	}
	out := make([]point, length)
	for i := range out {
		at := values{points: map[string]point{}, empty: empty, reading: r}
		for id := range a.series {
			at.points[id] = columns[id][i]
		}
		out[i] = a.result(at)
	}
	return out
}

// statistic returns the statistic of the samples in [from, until).
func (s series) statistic(samples []Sample, from, until int) point {
	first, _ := slices.BinarySearchFunc(samples, from, func(sample Sample, minute int) int { return sample.Minute - minute })
	var out point
	for _, sample := range samples[first:] {
		if sample.Minute >= until {
			break
		}
		switch s.stat {
		case "Sum":
			out.value += sample.Value
		case "SampleCount":
			out.value++
		case "Maximum":
			if !out.ok || sample.Value > out.value {
				out.value = sample.Value
			}
		}
		out.ok = true
	}
	return out
}

// evaluate returns the state after the points of an evaluation range. Missing points are filled in only as far as there are too
// few real ones.
func (a *Alarm) evaluate(retrieved []point, state State) State {
	var found []point
	for _, p := range retrieved {
		if p.ok {
			found = append(found, p)
		}
	}
	found = found[max(0, len(found)-a.periods):]
	bad := 0
	for _, p := range found {
		if a.compare(p.value, a.threshold) {
			bad++
		}
	}
	lacking := a.periods - len(found)
	if a.missing == breaching {
		bad += lacking
	}
	switch {
	case bad >= a.datapoints:
		return Alarming
	case a.missing == ignore && lacking > 0 && bad == len(found):
		return state
	}
	return OK
}
