package dashboard

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/alarms"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe/observetest"
)

func TestReadLines_ReadsWhatTheFunctionsWrite(t *testing.T) {
	begin := time.UnixMilli(1_000_000)
	m := observe.Metrics{Deployment: "lab", Function: "provision"}
	m.Add(observe.Provisioned, 3)
	m.Time(observe.QueueAge, 2*time.Second)
	m.Time(observe.QueueAge, time.Second)
	var log bytes.Buffer
	log.WriteString("START RequestId: x\n" + `{"time":"t","level":"INFO","msg":"done"}` + "\n")
	for _, at := range []time.Duration{-time.Second, 1500 * time.Millisecond} {
		m.Count(observe.Provisioned)
		if err := m.Write(&log, begin.Add(at)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadLines(log.String(), begin)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].At != 1500*time.Millisecond || got[0].Metric != (alarms.Metric{Namespace: OwnNamespace, Name: "Provisioned", Of: "provision"}) ||
		!slices.Equal(got[0].Values, []Value{{1, 1}}) {
		t.Errorf("got %+v, want the one count after the scene's begin", got)
	}
	if got, err = ReadLines(log.String(), begin.Add(-time.Minute)); err != nil || len(got) != 3 || !slices.Equal(got[1].Values, []Value{{2000, 1}, {1000, 1}}) {
		t.Errorf("got %+v, %v, want two counts and two ages", got, err)
	}
}

func TestStatistic_CountsEachOccurrence(t *testing.T) {
	values := []Value{{30, 1}, {10, 97}, {20, 2}}
	for stat, want := range map[string]float64{"Sum": 1040, "Maximum": 30, "p50": 10, "p98": 20, "p99": 20, "p99.5": 30, "p100": 30} {
		if got, err := statistic(stat, values); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", stat, got, err, want)
		}
	}
	for _, stat := range []string{"Average", "tm99", "p0", "pxx"} {
		if got, err := statistic(stat, values); err == nil {
			t.Errorf("%s: got %v, want an error: it is not implemented", stat, got)
		}
	}
}

func TestPoints_HaveOneValueForEachDrawnPeriod(t *testing.T) {
	m := alarms.Metric{Namespace: "N", Name: "M", Of: "f"}
	at := func(s float64, v float64) Sample {
		return Sample{At: time.Duration(s * float64(time.Second)), Metric: m, Values: []Value{{v, 1}}}
	}
	// One second is drawn as a minute: a period of five minutes is five seconds.
	r := Recording{Scale: 60, Length: time.Minute, Samples: []Sample{at(0, 1), at(4.9, 2), at(5, 4), at(12, 8)}}
	got, err := r.points(Series{Metric: m, Stat: "Sum"}, 300)
	want := []point{{0, 3}, {5 * time.Minute, 4}, {10 * time.Minute, 8}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestReadBody_RefusesWhatIsNotImplemented(t *testing.T) {
	const good = `{"widgets":[{"type":"metric","x":0,"y":0,"width":12,"height":6,"properties":{"region":"r","view":"timeSeries","period":300,"title":"T","stat":"Sum","metrics":[["N","M","D","v",{"label":"l"}]]}}]}`
	if w, err := readBody(good); err != nil || len(w) != 1 || w[0].Series[0] != (Series{alarms.Metric{Namespace: "N", Name: "M", Of: "v"}, "Sum", "l"}) {
		t.Fatalf("got %+v, %v", w, err)
	}
	for from, to := range map[string]string{
		`"type":"metric"`:       `"type":"log"`,
		`"timeSeries"`:          `"pie"`,
		`"stat":"Sum"`:          `"stat":"Average"`,
		`"title":"T"`:           `"title":"T","stacked":true`,
		`{"label":"l"}`:         `{"label":"l","yAxis":"right"}`,
		`["N","M","D","v",{"`:   `[{"expression":"a+b","`,
		`["N","M","D","v",`:     `["...","v",`,
		`"D","v",{"label":"l"}`: `"D"`,
	} {
		if w, err := readBody(strings.Replace(good, from, to, 1)); err == nil {
			t.Errorf("%s in place of %s: got %+v, want an error", to, from, w)
		}
	}
}

// recordings returns the recorded scenes.
func recordings(t *testing.T) []Recording {
	t.Helper()
	var all []Recording
	for _, name := range Scenes() {
		r, err := Load("testdata", name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestPictures_AreDrawnFromTheRecordedScenes(t *testing.T) {
	d := deployed(t)
	for _, r := range recordings(t) {
		want, err := Draw(d, r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "dashboard", File(r.Name)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/dashboard/%s is not the picture of the recorded scene and the template's dashboard (%v): make dashboard-plots draws it", File(r.Name), err)
		}
	}
}

// reported returns the metrics that the scenes have.
func reported(t *testing.T) map[alarms.Metric]bool {
	t.Helper()
	out := map[alarms.Metric]bool{}
	for _, r := range recordings(t) {
		for _, s := range r.Samples {
			out[s.Metric] = true
		}
	}
	return out
}

func TestWidgets_HaveDataInAScene(t *testing.T) {
	d, recorded := deployed(t), reported(t)
	why := map[alarms.Metric]string{}
	need := func(m alarms.Metric, by string) {
		reason := missing(m)
		switch {
		case !recorded[m] && reason == "":
			t.Errorf("%s shows %+v, which no scene has: a typing error, or nothing writes it", by, m)
		case recorded[m] && reason != "":
			t.Errorf("%+v is listed as %q, and a scene has it", m, reason)
		}
		why[m] = reason
	}
	for _, w := range d.Widgets {
		for _, s := range w.Series {
			need(s.Metric, "widget "+w.Title)
		}
	}
	for name, a := range d.Alarms {
		for _, m := range a.Metrics() {
			need(m, "alarm "+name)
		}
	}
	for m := range recorded {
		if _, ok := why[m]; !ok && notShown(m) == "" {
			t.Errorf("%+v is reported, and neither a widget nor an alarm shows it: show it, or list it with the reason", m)
		}
	}
	counts, times := observetest.MetricNames()
	for _, name := range slices.Concat(counts, times) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(why)), func(m alarms.Metric) bool { return m.Namespace == OwnNamespace && m.Name == name }) {
			t.Errorf("no widget shows the metric %s", name)
		}
	}
}
