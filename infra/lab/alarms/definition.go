package alarms

import (
	"errors"
	"fmt"
)

// Metric is a metric's namespace, its name and the value of its last dimension, which tells apart the metrics of one name.
type Metric struct{ Namespace, Name, Of string }

// Alarm is an alarm's definition.
type Alarm struct {
	series     map[string]series // by the ID in the expression
	result     expression
	compare    func(value, threshold float64) bool
	threshold  float64
	periods    int // EvaluationPeriods
	datapoints int // DatapointsToAlarm
	missing    string
}

// series is a metric with its statistic over a period of minutes.
type series struct {
	metric  Metric
	stat    string
	minutes int
}

// The treatments of missing data that are implemented.
const (
	notBreaching = "notBreaching"
	breaching    = "breaching"
	ignore       = "ignore"
)

// single is the ID of an alarm's only metric.
const single = "m"

// comparisons are the implemented operators.
var comparisons = map[string]func(value, threshold float64) bool{
	"GreaterThanThreshold":          func(v, t float64) bool { return v > t },
	"GreaterThanOrEqualToThreshold": func(v, t float64) bool { return v >= t },
	"LessThanThreshold":             func(v, t float64) bool { return v < t },
}

// Read returns the alarm with the properties of an AWS::CloudWatch::Alarm, in which numbers are float64. spell returns the text
// of a dimension's value, which may be a function of the template.
func Read(properties map[string]any, spell func(any) string) (Alarm, error) {
	a := Alarm{
		series: map[string]series{}, periods: whole(properties["EvaluationPeriods"]), datapoints: whole(properties["DatapointsToAlarm"]),
	}
	if a.datapoints == 0 {
		a.datapoints = a.periods
	}
	if a.periods < 1 || a.datapoints > a.periods {
		return Alarm{}, fmt.Errorf("%d datapoints of %d evaluation periods", a.datapoints, a.periods)
	}
	operator := fmt.Sprint(properties["ComparisonOperator"])
	if a.compare = comparisons[operator]; a.compare == nil {
		return Alarm{}, fmt.Errorf("the operator %s is not implemented", operator)
	}
	threshold, ok := properties["Threshold"].(float64)
	if !ok {
		return Alarm{}, fmt.Errorf("the threshold is %v", properties["Threshold"])
	}
	a.threshold = threshold
	switch a.missing = fmt.Sprint(properties["TreatMissingData"]); a.missing {
	case notBreaching, breaching, ignore:
	default:
		return Alarm{}, fmt.Errorf("the treatment %s of missing data is not implemented", a.missing)
	}
	if err := a.readMetrics(properties, spell); err != nil {
		return Alarm{}, err
	}
	return a, nil
}

// readMetrics reads the alarm's metric, or its metrics and their expression.
func (a *Alarm) readMetrics(properties map[string]any, spell func(any) string) error {
	entries, _ := properties["Metrics"].([]any)
	if len(entries) == 0 {
		if err := a.add(single, properties, properties["Statistic"], properties["Period"], spell); err != nil {
			return err
		}
		a.result = name(single)
		return nil
	}
	text := ""
	for _, e := range entries {
		entry, _ := e.(map[string]any)
		if expression, ok := entry["Expression"].(string); ok {
			if text != "" {
				return errors.New("more than one expression")
			}
			text = expression
			continue
		}
		stat, _ := entry["MetricStat"].(map[string]any)
		metric, _ := stat["Metric"].(map[string]any)
		if err := a.add(fmt.Sprint(entry["Id"]), metric, stat["Stat"], stat["Period"], spell); err != nil {
			return err
		}
	}
	parsed, err := parse(text, a.series)
	if err != nil {
		return fmt.Errorf("expression %q: %w", text, err)
	}
	a.result = parsed
	return nil
}

// add adds a metric under an ID. All metrics of an alarm must have one period.
func (a *Alarm) add(id string, metric map[string]any, stat, period any, spell func(any) string) error {
	s := series{
		metric: Metric{Namespace: fmt.Sprint(metric["Namespace"]), Name: fmt.Sprint(metric["MetricName"])},
		stat:   fmt.Sprint(stat), minutes: whole(period) / 60,
	}
	dimensions, _ := metric["Dimensions"].([]any)
	for _, d := range dimensions {
		dimension, _ := d.(map[string]any)
		s.metric.Of = spell(dimension["Value"])
	}
	switch s.stat {
	case "Sum", "Maximum", "SampleCount":
	default:
		return fmt.Errorf("metric %s: the statistic %s is not implemented", id, s.stat)
	}
	if s.minutes < 1 || whole(period)%60 != 0 {
		return fmt.Errorf("metric %s: the period is %v, want whole minutes", id, period)
	}
	for _, other := range a.series {
		if other.minutes != s.minutes {
			return fmt.Errorf("metric %s has periods of %d minutes, another of %d", id, s.minutes, other.minutes)
		}
	}
	a.series[id] = s
	return nil
}

// Metrics returns the metrics that the alarm watches.
func (a *Alarm) Metrics() []Metric {
	var out []Metric
	for _, s := range a.series {
		out = append(out, s.metric)
	}
	return out
}

// Lasts returns the minutes for which a fault must last until the alarm can go off, and for which the alarm can outlast it.
func (a *Alarm) Lasts() int {
	for _, s := range a.series {
		return s.minutes * a.periods
	}
	return 0
}

func whole(v any) int {
	n, _ := v.(float64)
	return int(n)
}
