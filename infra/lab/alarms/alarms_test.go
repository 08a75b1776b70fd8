package alarms

import (
	"slices"
	"strings"
	"testing"
)

func spell(v any) string { s, _ := v.(string); return s }

// definition returns the properties of an alarm on one metric in periods of five minutes.
func definition(change map[string]any) map[string]any {
	out := map[string]any{
		"Namespace": "N", "MetricName": "M", "Statistic": "Maximum", "Period": 300.0, "EvaluationPeriods": 3.0, "Threshold": 0.0,
		"ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": notBreaching,
	}
	for key, value := range change {
		out[key] = value
	}
	return out
}

// The rows are those of the tables of AWS's page: 0 is within the threshold, X beyond it, - missing, the newest last. keep is
// "Retain current state".
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
func TestEvaluation_FollowsAWSsTables(t *testing.T) {
	const keep = State("keep")
	for _, row := range []struct {
		points                          string
		datapoints                      float64
		ignored, breached, notBreaching State
	}{
		{"0-X-X", 3, OK, OK, OK},
		{"0----", 3, OK, OK, OK},
		{"-----", 3, keep, Alarming, OK},
		{"0XX-X", 3, Alarming, Alarming, Alarming},
		{"----X", 3, keep, Alarming, OK},
		{"X----", 3, keep, Alarming, OK},
		{"0-X-X", 2, Alarming, Alarming, Alarming},
		{"00X0X", 2, Alarming, Alarming, Alarming},
		{"0-X--", 2, OK, Alarming, OK},
		{"----0", 2, OK, Alarming, OK},
		{"----X", 2, keep, Alarming, OK},
	} {
		var points []point
		for _, r := range row.points {
			points = append(points, point{ok: r != '-', value: map[rune]float64{'X': 1}[r]})
		}
		for treatment, want := range map[string]State{ignore: row.ignored, breaching: row.breached, notBreaching: row.notBreaching} {
			a, err := Read(definition(map[string]any{"DatapointsToAlarm": row.datapoints, "TreatMissingData": treatment}), spell)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.evaluate(points, keep); got != want {
				t.Errorf("%s, %v of 3, missing data %s: %s, AWS's table says %s", row.points, row.datapoints, treatment, got, want)
			}
		}
	}
}

func TestWalk_SlidesTheWindow(t *testing.T) {
	m := Metric{"N", "M", ""}
	a, err := Read(definition(map[string]any{"EvaluationPeriods": 2.0}), spell)
	if err != nil {
		t.Fatal(err)
	}
	// Both halves of the last ten minutes hold a high sample from minute 12 to minute 16.
	got := a.Walk(Stream{m: {{-3, 1}, {7, 1}, {12, 1}}}, 30, Reading{})
	want := []Change{{0, OK}, {12, Alarming}, {17, OK}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMath_IsAWSs(t *testing.T) {
	known := map[string]series{"a": {}, "b": {}}
	at := map[string]point{"a": {value: 3, ok: true}}
	for text, want := range map[string]float64{
		"FILL(a,0)+FILL(b,2)-1": 4, "MAX([FILL(a,0),FILL(b,7)])": 7, "IF(FILL(a,0)>2,FILL(b,5),9)": 5, "IF(FILL(a,0) > 3, 1, FILL(b, 6))": 6,
	} {
		e, err := parse(text, known)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := e(values{points: at}); !got.ok || got.value != want {
			t.Errorf("%s is %+v, want %v", text, got, want)
		}
	}
	e, err := parse("IF(FILL(a,0)>0,FILL(b,5),9)", known)
	if err != nil {
		t.Fatal(err)
	}
	if got := e(values{points: at, empty: map[string]bool{"b": true}, reading: Reading{EmptyStaysEmpty: true}}); got.ok {
		t.Errorf("got %+v where b stays empty, want it missing", got)
	}
}

func TestRead_RefusesWhatItCannotEvaluate(t *testing.T) {
	entry := func(id string, period float64) map[string]any {
		return map[string]any{"Id": id, "MetricStat": map[string]any{"Stat": "Sum", "Period": period, "Metric": map[string]any{"Namespace": "N", "MetricName": id}}}
	}
	for name, change := range map[string]map[string]any{
		"missing":            {"TreatMissingData": "missing"},
		"Average":            {"Statistic": "Average"},
		"whole minutes":      {"Period": 10.0},
		"LessThanOrEqual":    {"ComparisonOperator": "LessThanOrEqualToThreshold"},
		"evaluation periods": {"DatapointsToAlarm": 4.0},
		"FILLed":             {"Metrics": []any{map[string]any{"Expression": "a+1"}, entry("a", 300)}},
		"another of":         {"Metrics": []any{map[string]any{"Expression": "FILL(a,0)+FILL(b,0)"}, entry("a", 300), entry("b", 60)}},
		"RATE":               {"Metrics": []any{map[string]any{"Expression": "RATE(a)"}, entry("a", 300)}},
		"none of":            {"Metrics": []any{map[string]any{"Expression": "FILL(c,0)"}, entry("a", 300)}},
		"more than one":      {"Metrics": []any{map[string]any{"Expression": "FILL(a,0)"}, map[string]any{"Expression": "FILL(a,0)"}, entry("a", 300)}},
		"unexpected":         {"Metrics": []any{map[string]any{"Expression": "FILL(a,0))"}, entry("a", 300)}},
		"the threshold is":   {"Threshold": nil},
	} {
		if _, err := Read(definition(change), spell); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}
