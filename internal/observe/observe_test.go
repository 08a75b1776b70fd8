package observe_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

func TestMetrics_AreWrittenOnceInEmbeddedFormat(t *testing.T) {
	m := &observe.Metrics{Deployment: "d", Function: "provision"}
	m.Count(observe.Provisioned)
	m.Count(observe.Provisioned)
	for range 150 {
		m.Time(observe.TimeToReady, 20*time.Millisecond)
	}
	var out bytes.Buffer
	if err := m.Write(&out, time.UnixMilli(1234)); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	if len(lines) != 2 {
		t.Fatalf("150 values of one metric need 2 lines of at most 100, got %d", len(lines))
	}
	values := 0
	for n, line := range lines {
		var l struct {
			AWS struct {
				Timestamp         int64
				CloudWatchMetrics []struct {
					Namespace  string
					Dimensions [][]string
					Metrics    []struct{ Name, Unit string }
				}
			} `json:"_aws"`
			Deployment, Function string
			Provisioned          int
			TimeToReady          []int
		}
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		values += len(l.TimeToReady)
		if l.AWS.Timestamp != 1234 || l.Deployment != "d" || l.Function != "provision" || len(l.AWS.CloudWatchMetrics) != 1 || len(l.TimeToReady) > 100 {
			t.Errorf("line %d: %s", n, line)
		}
		if want := []int{2, 0}[n]; l.Provisioned != want {
			t.Errorf("line %d counts %d provisioned, want %d: counted twice, it sets off a false alarm", n, l.Provisioned, want)
		}
		for _, metric := range l.AWS.CloudWatchMetrics[0].Metrics {
			if metric.Name == "" || metric.Unit == "" {
				t.Errorf("line %d: %+v", n, metric)
			}
		}
	}
	if values != 150 {
		t.Errorf("%d of 150 values were written", values)
	}
	out.Reset()
	if err := m.Write(&out, time.Now()); err != nil || out.Len() != 0 {
		t.Errorf("want nothing written without new metrics, got %s, %v", out.Bytes(), err)
	}
}
