package dashboard

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/alarms"
)

// ReadLines returns the metrics in a function's log from begin on. Lines that are no metrics are left out.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
func ReadLines(log string, begin time.Time) ([]Sample, error) {
	var all []Sample
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "{") || !strings.Contains(line, `"_aws"`) {
			continue
		}
		samples, err := readLine([]byte(line), begin)
		if err != nil {
			return nil, fmt.Errorf("reading the metrics %.200s: %w", line, err)
		}
		all = append(all, samples...)
	}
	return all, nil
}

// readLine returns the metrics of one line; none if it is older than begin.
func readLine(line []byte, begin time.Time) ([]Sample, error) {
	var meta struct {
		AWS struct {
			Timestamp         int64
			CloudWatchMetrics []struct {
				Namespace  string
				Dimensions [][]string
				Metrics    []struct{ Name string }
			}
		} `json:"_aws"`
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &meta); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(line, &members); err != nil {
		return nil, err
	}
	at := time.UnixMilli(meta.AWS.Timestamp).Sub(time.UnixMilli(begin.UnixMilli()))
	if at < 0 {
		return nil, nil
	}
	var out []Sample
	for _, directive := range meta.AWS.CloudWatchMetrics {
		if len(directive.Dimensions) != 1 || len(directive.Dimensions[0]) == 0 {
			return nil, fmt.Errorf("the dimension sets are %v, want one", directive.Dimensions)
		}
		var of string
		if err := json.Unmarshal(members[directive.Dimensions[0][len(directive.Dimensions[0])-1]], &of); err != nil {
			return nil, fmt.Errorf("reading its last dimension: %w", err)
		}
		for _, m := range directive.Metrics {
			values, err := readValues(members[m.Name])
			if err != nil {
				return nil, fmt.Errorf("reading its metric %s: %w", m.Name, err)
			}
			out = append(out, Sample{At: at, Metric: alarms.Metric{Namespace: directive.Namespace, Name: m.Name, Of: of}, Values: values})
		}
	}
	return out, nil
}

// readValues reads a number, a list of numbers, or values with their counts.
func readValues(text json.RawMessage) ([]Value, error) {
	var one float64
	if json.Unmarshal(text, &one) == nil {
		return []Value{{one, 1}}, nil
	}
	var list []float64
	if json.Unmarshal(text, &list) == nil {
		out := make([]Value, len(list))
		for i, v := range list {
			out[i] = Value{v, 1}
		}
		return out, nil
	}
	var counted struct {
		Values []float64
		Counts []int
	}
	if err := json.Unmarshal(text, &counted); err != nil {
		return nil, err
	}
	if len(counted.Values) != len(counted.Counts) {
		return nil, fmt.Errorf("%d values and %d counts", len(counted.Values), len(counted.Counts))
	}
	out := make([]Value, len(counted.Values))
	for i, v := range counted.Values {
		out[i] = Value{v, counted.Counts[i]}
	}
	return out, nil
}
