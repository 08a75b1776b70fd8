package dashboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/alarms"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
)

// Series is one line of a widget: a metric and its statistic.
type Series struct {
	Metric alarms.Metric
	Stat   string
	Label  string
}

// Widget is a widget at its place in the dashboard's grid of 24 columns. It has either series or alarms.
type Widget struct {
	X, Y, Width, Height int
	Title               string
	Period              int // seconds
	Series              []Series
	Alarms              []string // the ends of their names, after the stack's name
}

// Dashboard is the template's dashboard and its alarms, by the ends of their names. A function or queue is named by its logical ID.
type Dashboard struct {
	Widgets []Widget
	Alarms  map[string]alarms.Alarm
}

// Read returns the dashboard in resources that stack.Resolve returned.
func Read(resources map[string]any) (Dashboard, error) {
	d := Dashboard{Alarms: map[string]alarms.Alarm{}}
	for id, r := range resources {
		resource, _ := r.(map[string]any)
		properties, _ := resource["Properties"].(map[string]any)
		switch resource["Type"] {
		case "AWS::CloudWatch::Dashboard":
			widgets, err := readBody(substituted(properties["DashboardBody"]))
			if err != nil {
				return d, fmt.Errorf("reading the dashboard %s: %w", id, err)
			}
			d.Widgets = append(d.Widgets, widgets...)
		case "AWS::CloudWatch::Alarm":
			a, err := alarms.Read(properties, spelled)
			if err != nil {
				return d, fmt.Errorf("reading the alarm %s: %w", id, err)
			}
			d.Alarms[endOf(substituted(properties["AlarmName"]))] = a
		}
	}
	if len(d.Widgets) == 0 {
		return d, errors.New("the template has no dashboard")
	}
	for _, w := range d.Widgets {
		for _, name := range w.Alarms {
			if _, ok := d.Alarms[name]; !ok {
				return d, fmt.Errorf("widget %q shows the alarm %s, which the template lacks", w.Title, name)
			}
		}
	}
	return d, nil
}

// spelled returns the logical ID in a dimension's value, or its text.
func spelled(v any) string {
	if id, ok := stack.LogicalID(v); ok {
		return id
	}
	return fmt.Sprint(v)
}

const stackName = "lab"

// endOf returns an alarm's name after the stack's.
func endOf(name string) string {
	_, end, _ := strings.Cut(name, stackName+"-")
	return end
}

// substituted returns the text of an Fn::Sub with the stack's name, and logical IDs for resources and their attributes.
func substituted(v any) string {
	function, _ := v.(map[string]any)
	text, _ := function["Fn::Sub"].(string)
	return regexp.MustCompile(`\$\{([A-Za-z:]+)[^}]*\}`).ReplaceAllStringFunc(text, func(name string) string {
		id, _, _ := strings.Cut(strings.Trim(name, "${}"), ".")
		if id == "AWS::StackName" {
			return stackName
		}
		return id
	})
}

// strictly reads JSON and fails on members that out does not have.
func strictly(text []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(out)
}

func readBody(text string) ([]Widget, error) {
	var body struct {
		Start   string `json:"start"`
		Widgets []struct {
			Type       string          `json:"type"`
			X          int             `json:"x"`
			Y          int             `json:"y"`
			Width      int             `json:"width"`
			Height     int             `json:"height"`
			Properties json.RawMessage `json:"properties"`
		} `json:"widgets"`
	}
	if err := strictly([]byte(text), &body); err != nil {
		return nil, err
	}
	var out []Widget
	for _, b := range body.Widgets {
		w := Widget{X: b.X, Y: b.Y, Width: b.Width, Height: b.Height}
		var err error
		switch b.Type {
		case "metric":
			err = w.readMetrics(b.Properties)
		case "alarm":
			err = w.readAlarms(b.Properties)
		default:
			err = fmt.Errorf("widgets of the type %q are not implemented", b.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("widget %q at %d, %d: %w", w.Title, w.X, w.Y, err)
		}
		out = append(out, w)
	}
	return out, nil
}

func (w *Widget) readAlarms(properties json.RawMessage) error {
	var p struct {
		Title  string   `json:"title"`
		Alarms []string `json:"alarms"`
	}
	if err := strictly(properties, &p); err != nil {
		return err
	}
	w.Title = p.Title
	for _, arn := range p.Alarms {
		w.Alarms = append(w.Alarms, endOf(arn))
	}
	return nil
}

func (w *Widget) readMetrics(properties json.RawMessage) error {
	var p struct {
		Region  string              `json:"region"`
		View    string              `json:"view"`
		Period  int                 `json:"period"`
		Title   string              `json:"title"`
		Stat    string              `json:"stat"`
		Metrics [][]json.RawMessage `json:"metrics"`
	}
	if err := strictly(properties, &p); err != nil {
		return err
	}
	if w.Title, w.Period = p.Title, p.Period; p.View != "timeSeries" || p.Period < 60 {
		return fmt.Errorf("the view %q with periods of %d seconds is not implemented", p.View, p.Period)
	}
	for _, entry := range p.Metrics {
		s, err := readSeries(entry, p.Stat)
		if err != nil {
			return fmt.Errorf("metric %s: %w", entry, err)
		}
		w.Series = append(w.Series, s)
	}
	return nil
}

// readSeries reads a namespace, a name, pairs of a dimension's name and value, and options.
func readSeries(entry []json.RawMessage, stat string) (Series, error) {
	var options struct {
		Stat  string `json:"stat"`
		Label string `json:"label"`
	}
	texts := make([]string, 0, len(entry))
	for n, part := range entry {
		var text string
		if err := json.Unmarshal(part, &text); err == nil {
			texts = append(texts, text)
			continue
		}
		if n != len(entry)-1 || n == 0 {
			return Series{}, errors.New("an expression, or options that are not the last element, are not implemented")
		}
		if err := strictly(part, &options); err != nil {
			return Series{}, err
		}
	}
	if len(texts) < 4 || len(texts)%2 != 0 {
		return Series{}, fmt.Errorf("%d texts, want a namespace, a name and pairs", len(texts))
	}
	for _, text := range texts {
		if strings.HasPrefix(text, ".") {
			return Series{}, errors.New("abbreviations are not implemented")
		}
	}
	s := Series{Metric: alarms.Metric{Namespace: texts[0], Name: texts[1], Of: texts[len(texts)-1]}, Stat: stat, Label: options.Label}
	if options.Stat != "" {
		s.Stat = options.Stat
	}
	if s.Label == "" {
		s.Label = strings.ToLower(strings.TrimSuffix(s.Metric.Of, "Function")) + ": " + s.Metric.Name
	}
	_, err := statistic(s.Stat, nil)
	return s, err
}
