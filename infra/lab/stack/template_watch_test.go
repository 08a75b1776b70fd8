package stack

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// awsMetrics are the metrics of AWS's services that the template uses, with their only dimension.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/aws-services-cloudwatch-metrics.html
var awsMetrics = map[string]string{
	"AWS/SQS ApproximateNumberOfMessagesVisible": "QueueName",
	"AWS/SQS ApproximateAgeOfOldestMessage":      "QueueName",
	"AWS/Events FailedInvocations":               "RuleName",
	"AWS/Lambda Errors":                          "FunctionName",
	"AWS/Lambda Throttles":                       "FunctionName",
	"AWS/Lambda Duration":                        "FunctionName",
	"AWS/Lambda ConcurrentExecutions":            "FunctionName",
}

// metric is a metric in an alarm or a widget. Dimensions alternate between name and value.
type metric struct {
	where, namespace, name string
	dimensions             []string
}

// ownMetrics returns the metric names of internal/observe: its exported constants with a value like a metric's name.
func ownMetrics(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "internal", "observe", "observe.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	spelling := regexp.MustCompile(`^[A-Z][A-Za-z0-9]+$`)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !spec.Names[0].IsExported() {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
			if value, err := strconv.Unquote(literal.Value); err == nil && spelling.MatchString(value) {
				names = append(names, value)
			}
		}
		return true
	})
	if len(names) < 20 {
		t.Fatalf("the test found only the metrics %q of internal/observe", names)
	}
	return names
}

// check checks that the functions or AWS report a metric with these dimensions.
func (m metric) check(t *testing.T, own []string, resources map[string]any) {
	t.Helper()
	if m.namespace != "VaultEC2Provisioner" {
		if want := awsMetrics[m.namespace+" "+m.name]; len(m.dimensions) != 2 || want == "" || m.dimensions[0] != want {
			t.Errorf("%s: %s %s with %q is none of AWS's metrics", m.where, m.namespace, m.name, m.dimensions)
			return
		}
		id, _, _ := strings.Cut(strings.Trim(m.dimensions[1], "${}"), ".")
		if resources[id] == nil {
			t.Errorf("%s: %s is of %s, which is not in the template", m.where, m.name, m.dimensions[1])
		}
		return
	}
	if !slices.Contains(own, m.name) {
		t.Errorf("%s: no function reports the metric %s", m.where, m.name)
	}
	functions := []string{"provision", "deprovision", "reconcile"}
	want := []string{"Deployment", "${AWS::StackName}", "Function"}
	if len(m.dimensions) != 4 || !slices.Equal(m.dimensions[:3], want) || !slices.Contains(functions, m.dimensions[3]) {
		t.Errorf("%s: %s has the dimensions %q, but is reported under Deployment and Function", m.where, m.name, m.dimensions)
	}
}

// spelt returns a dimension's value in the form of Fn::Sub.
func spelt(v any) string {
	if text, ok := v.(string); ok {
		return text
	}
	if function, argument, ok := intrinsic(v); ok && function == "Ref" {
		return "${" + fmt.Sprint(argument) + "}"
	}
	if id, ok := LogicalID(v); ok {
		return "${" + id + ".}"
	}
	return fmt.Sprint(v)
}

func ofAlarm(id string, m map[string]any) metric {
	out := metric{where: "alarm " + id, namespace: fmt.Sprint(m["Namespace"]), name: fmt.Sprint(m["MetricName"])}
	dimensions, _ := m["Dimensions"].([]any)
	for _, d := range dimensions {
		out.dimensions = append(out.dimensions, fmt.Sprint(object(d)["Name"]), spelt(object(d)["Value"]))
	}
	return out
}

func TestAlarms_WatchRealMetricsAndLinkTheRunbook(t *testing.T) {
	runbook, err := os.ReadFile(filepath.Join(root, "infra", "RUNBOOK.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(string(runbook), -1) {
		sections[strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
	}
	parameters := member()
	parameters["AlarmTopicArn"], parameters["AlarmOKTopicArn"] = full["AlarmTopicArn"], full["AlarmOKTopicArn"]
	own, resources := ownMetrics(t), resolved(t, full)
	watched := each(t, resources, "AWS::CloudWatch::Alarm")
	members := resolve(t, shared(t, memberTemplate), parameters)
	maps.Copy(watched, each(t, members, "AWS::CloudWatch::Alarm"))
	resources = maps.Clone(resources)
	maps.Copy(resources, members)
	for id, alarm := range watched {
		if alarm["MetricName"] != nil {
			ofAlarm(id, alarm).check(t, own, resources)
		}
		metrics, _ := alarm["Metrics"].([]any)
		expression := ""
		for _, m := range metrics {
			if e, ok := object(m)["Expression"].(string); ok {
				expression = e
			}
		}
		for _, m := range metrics {
			entry := object(m)
			if entry["Expression"] != nil {
				continue
			}
			ofAlarm(id, object(object(entry["MetricStat"])["Metric"])).check(t, own, resources)
			if entry["ReturnData"] != false || !regexp.MustCompile(`\b`+fmt.Sprint(entry["Id"])+`\b`).MatchString(expression) {
				t.Errorf("alarm %s: %v is not part of %q, or returns data itself", id, entry["Id"], expression)
			}
		}
		if (alarm["MetricName"] == nil) == (len(metrics) == 0) || len(metrics) > 10 {
			t.Errorf("alarm %s: AWS requires one metric, or up to ten in an expression", id)
		}
		description, _ := object(alarm["AlarmDescription"])["Fn::Sub"].(string)
		_, anchor, linked := strings.Cut(description, "${RunbookUrl}#")
		if !linked || !sections[anchor] {
			t.Errorf("alarm %s links to %q, which is no section of the runbook", id, anchor)
		}
		delete(sections, anchor)
		missing := "notBreaching"
		switch id {
		case "ReconcileNotRunAlarm":
			missing = "breaching" // the alarm is about missing data
		case "BlockedAlarm":
			missing = "ignore" // a block lasts until the next run that is not blocked
		}
		if alarm["TreatMissingData"] != missing {
			t.Errorf("alarm %s treats missing data as %v, want %s", id, alarm["TreatMissingData"], missing)
		}
		if text(t, alarm["AlarmActions"]) != `[{"Ref":"AlarmTopicArn"}]` || text(t, alarm["OKActions"]) != `[{"Ref":"AlarmOKTopicArn"}]` {
			t.Errorf("alarm %s has the actions %v and %v", id, alarm["AlarmActions"], alarm["OKActions"])
		}
		looksBack(t, id, alarm)
	}
	for left := range sections {
		t.Errorf("the runbook's section %q belongs to no alarm", left)
	}
}

// A description's link that leads nowhere is of no use at night. The default is the page of this module's repository.
func TestRunbookUrl_IsALinkByDefault(t *testing.T) {
	module, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(string(module), "module "), "\n")
	want := "https://" + name + "/blob/main/infra/RUNBOOK.md"
	for _, template := range templates {
		if seen := object(object(shared(t, template)["Parameters"])["RunbookUrl"])["Default"]; seen != want {
			t.Errorf("%s: RunbookUrl is %v by default, want %s", template, seen, want)
		}
	}
}

// looksBack checks an alarm's periods against CloudWatch's limits: seven days at most, one day with periods under an hour.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
func looksBack(t *testing.T, id string, alarm map[string]any) {
	t.Helper()
	period := periodOf(alarm)
	most := 86400
	if period >= 3600 {
		most = 7 * 86400
	}
	if total := period * number(alarm["EvaluationPeriods"]); period == 0 || period%60 != 0 || period > 86400 || total > most {
		t.Errorf("alarm %s covers %d s in periods of %d s, but CloudWatch allows %d s at most", id, total, period, most)
	}
}

// periodOf returns an alarm's longest period in seconds.
func periodOf(alarm map[string]any) int {
	period := number(alarm["Period"])
	metrics, _ := alarm["Metrics"].([]any)
	for _, m := range metrics {
		period = max(period, number(object(object(m)["MetricStat"])["Period"]))
	}
	return period
}

func TestAlarms_NeedNoTopicAndFollowTheSchedule(t *testing.T) {
	parameters := map[string]string{"VaultAddr": "https://vault.example:8200", "ReconcileSchedule": "off"}
	with, without := each(t, resolved(t, bare), "AWS::CloudWatch::Alarm"), each(t, resolved(t, parameters), "AWS::CloudWatch::Alarm")
	if len(with) != len(without)+1 || with["ReconcileNotRunAlarm"] == nil || without["ReconcileNotRunAlarm"] != nil {
		t.Errorf("want one alarm less without a schedule, got %d and %d", len(with), len(without))
	}
	for id, alarm := range with {
		if alarm["AlarmActions"] != nil || alarm["OKActions"] != nil {
			t.Errorf("alarm %s has actions without a topic", id)
		}
	}
}

func TestDashboard_ShowsEveryMetricAndAlarm(t *testing.T) {
	own, resources := ownMetrics(t), resolved(t, full)
	alarms := map[string]bool{}
	for _, alarm := range each(t, resources, "AWS::CloudWatch::Alarm") {
		name, _ := object(alarm["AlarmName"])["Fn::Sub"].(string)
		alarms["arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:"+name] = true
	}
	body, _ := object(object(object(resources["Dashboard"])["Properties"])["DashboardBody"])["Fn::Sub"].(string)
	var dashboard struct {
		Widgets []struct {
			Type                string
			X, Y, Width, Height int
			Properties          struct {
				Title, Region string
				Alarms        []string
				Metrics       [][]any
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &dashboard); err != nil {
		t.Fatalf("CloudWatch would refuse the dashboard: %v", err)
	}
	shown := map[string]bool{}
	for i, w := range dashboard.Widgets {
		where := "widget " + w.Properties.Title
		if w.Width == 0 || w.Height == 0 || w.X+w.Width > 24 {
			t.Errorf("%s does not fit on the dashboard: %+v", where, w)
		}
		for _, other := range dashboard.Widgets[:i] {
			if w.X < other.X+other.Width && other.X < w.X+w.Width && w.Y < other.Y+other.Height && other.Y < w.Y+w.Height {
				t.Errorf("%s overlaps %s", where, other.Properties.Title)
			}
		}
		for _, arn := range w.Properties.Alarms {
			if !alarms[arn] {
				t.Errorf("%s shows %s, which is not an alarm", where, arn)
			}
			delete(alarms, arn)
		}
		if w.Type == "metric" && (w.Properties.Region != "${AWS::Region}" || len(w.Properties.Metrics) == 0) {
			t.Errorf("%s has region %q and %d metrics", where, w.Properties.Region, len(w.Properties.Metrics))
		}
		for _, row := range w.Properties.Metrics {
			m := metric{where: where, namespace: fmt.Sprint(row[0]), name: fmt.Sprint(row[1])}
			for _, d := range row[2:] {
				if text, ok := d.(string); ok {
					m.dimensions = append(m.dimensions, text)
				}
			}
			m.check(t, own, resources)
			shown[m.name] = true
		}
	}
	for _, name := range own {
		if !shown[name] {
			t.Errorf("the metric %s is on no widget", name)
		}
	}
	for arn := range alarms {
		t.Errorf("the alarm %s is on no widget", arn)
	}
}

// CloudWatch refuses an alarm with an expression of undefined series, and a series in no expression has no effect.
func TestAlarmExpressions_NameExactlyTheirSeries(t *testing.T) {
	name := regexp.MustCompile(`\b[a-z]\w*\b`)
	for id, alarm := range each(t, resolved(t, full), "AWS::CloudWatch::Alarm") {
		series, _ := alarm["Metrics"].([]any)
		var defined, named []string
		for _, m := range series {
			m := object(m)
			if expression, ok := m["Expression"].(string); ok {
				named = append(named, name.FindAllString(expression, -1)...)
			} else {
				defined = append(defined, fmt.Sprint(m["Id"]))
			}
		}
		slices.Sort(defined)
		slices.Sort(named)
		if named = slices.Compact(named); len(series) > 0 && !slices.Equal(defined, named) {
			t.Errorf("%s: its expressions name %q, it defines %q", id, named, defined)
		}
	}
}
