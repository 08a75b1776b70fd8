package dashboard

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/alarms"
)

// OwnNamespace is the namespace of the functions' metrics.
const OwnNamespace = "VaultEC2Provisioner"

// Value is a value of a metric and the number of its occurrences.
type Value struct {
	Value float64
	Count int
}

// Sample is what a metric's source reported at one time. At is counted from the scene's begin, by the lab's clock.
type Sample struct {
	At     time.Duration
	Metric alarms.Metric
	Values []Value
}

// Recording is the metrics of one scene. One second of the lab is drawn as Scale seconds; values are as measured.
type Recording struct {
	Name    string
	Title   string
	Scale   int
	Length  time.Duration // of the lab's time
	Samples []Sample
}

// Shown returns the length of the drawn time axis.
func (r Recording) Shown() time.Duration { return r.Length * time.Duration(r.Scale) }

// header is the first line of a recording's file.
type header struct {
	Title        string `json:"title"`
	Scale        int    `json:"scale"`
	Milliseconds int64  `json:"milliseconds"`
}

// row is each other line: the metrics that one source reported at one time, each with pairs of a value and its count.
type row struct {
	Milliseconds int64                   `json:"at"`
	Namespace    string                  `json:"in,omitempty"` // empty for OwnNamespace
	Of           string                  `json:"of"`           // the value of the metric's last dimension
	Metrics      map[string][][2]float64 `json:"metrics"`
}

// file returns the path of a scene's recording.
func file(folder, name string) string { return filepath.Join(folder, name+".jsonl") }

// Save writes the recording into a folder.
func (r Recording) Save(folder string) error {
	lines := []any{header{Title: r.Title, Scale: r.Scale, Milliseconds: r.Length.Milliseconds()}}
	type key struct {
		at            time.Duration
		namespace, of string
	}
	rows := map[key]map[string][][2]float64{}
	for _, s := range r.Samples {
		k := key{s.At, s.Metric.Namespace, s.Metric.Of}
		if rows[k] == nil {
			rows[k] = map[string][][2]float64{}
		}
		for _, v := range s.Values {
			rows[k][s.Metric.Name] = append(rows[k][s.Metric.Name], [2]float64{v.Value, float64(v.Count)})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(rows), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.of, b.of))
	}) {
		namespace := k.namespace
		if namespace == OwnNamespace {
			namespace = ""
		}
		lines = append(lines, row{Milliseconds: k.at.Milliseconds(), Namespace: namespace, Of: k.of, Metrics: rows[k]})
	}
	var out bytes.Buffer
	for _, line := range lines {
		text, err := json.Marshal(line)
		if err != nil {
			return fmt.Errorf("writing the recording %s: %w", r.Name, err)
		}
		out.Write(append(text, '\n'))
	}
	if err := os.WriteFile(file(folder, r.Name), out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing the recording %s: %w", r.Name, err)
	}
	return nil
}

// Load reads the recording of a name from a folder.
func Load(folder, name string) (Recording, error) {
	text, err := os.ReadFile(file(folder, name))
	if err != nil {
		return Recording{}, fmt.Errorf("reading the recording %s (make dashboard records it): %w", name, err)
	}
	var head header
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	if err := json.Unmarshal(first, &head); err != nil {
		return Recording{}, fmt.Errorf("reading the first line of the recording %s: %w", name, err)
	}
	r := Recording{Name: name, Title: head.Title, Scale: head.Scale, Length: time.Duration(head.Milliseconds) * time.Millisecond}
	if r.Scale < 1 || r.Length <= 0 {
		return Recording{}, fmt.Errorf("the recording %s has the scale %d and takes %s", name, r.Scale, r.Length)
	}
	lines := bufio.NewScanner(bytes.NewReader(rest))
	lines.Buffer(nil, len(rest)+1)
	for lines.Scan() {
		var line row
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return Recording{}, fmt.Errorf("reading the recording %s: %w", name, err)
		}
		for _, metric := range slices.Sorted(maps.Keys(line.Metrics)) {
			s := Sample{
				At:     time.Duration(line.Milliseconds) * time.Millisecond,
				Metric: alarms.Metric{Namespace: cmp.Or(line.Namespace, OwnNamespace), Name: metric, Of: line.Of},
			}
			for _, pair := range line.Metrics[metric] {
				s.Values = append(s.Values, Value{Value: pair[0], Count: int(pair[1])})
			}
			r.Samples = append(r.Samples, s)
		}
	}
	return r, lines.Err()
}
