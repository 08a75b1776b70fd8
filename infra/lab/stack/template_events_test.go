package stack

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The fields of an EventBridge event, and the detail fields of an EC2 state change and a lifecycle action. A pattern with any
// other key matches nothing, and EventBridge reports no error.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
var (
	eventKeys  = []string{"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
	detailKeys = []string{
		"instance-id", "state",
		"LifecycleActionToken", "AutoScalingGroupName", "LifecycleHookName", "EC2InstanceId", "LifecycleTransition", "Origin", "Destination",
		"changed-tag-keys", "service", "resource-type", "tags",
	}
)

// matches reports whether an event matches a pattern of fields, lists of exact values and prefixes, as the templates use
// them. The test fails for a pattern that EventBridge would refuse, or that no event could match.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern.html
func matches(t *testing.T, pattern, event map[string]any, keys []string) bool {
	t.Helper()
	fits := true
	for key, want := range pattern {
		if !slices.Contains(keys, key) {
			t.Errorf("the pattern has the key %q, which such an event never has: it matches nothing", key)
		}
		switch want := want.(type) {
		case map[string]any:
			fits = matches(t, want, object(event[key]), detailKeys) && fits
		case []any:
			fits = slices.ContainsFunc(want, func(value any) bool { return fitsOne(t, key, value, event[key]) }) && fits
		default:
			t.Errorf("%s: %v is no list: EventBridge refuses the pattern", key, want)
		}
	}
	return fits
}

// fitsOne reports whether one value of a pattern's list matches an event's value. A parameter as prefix counts as its
// default. In an event's list, one matching value suffices.
func fitsOne(t *testing.T, key string, want, got any) bool {
	t.Helper()
	if but, ok := object(want)["anything-but"].([]any); ok && key == "changed-tag-keys" {
		out, _ := referred(but[0])
		if len(but) != 1 || out != "ReadyTag" {
			t.Errorf("%s: want anything but the functions' own tag, got %v", key, want)
		}
		return slices.ContainsFunc(list(got), func(k string) bool { return k != full["ReadyTag"] })
	}
	if _, isText := want.(string); isText {
		return want == got
	}
	prefix, isPrefix := object(want)["prefix"].(string)
	if to, ok := referred(object(want)["prefix"]); ok && to == "HookPrefix" {
		prefix, isPrefix = "vault-identity-", true
	}
	if !isPrefix || key == "source" {
		t.Errorf("%s: the test supports exact values and prefixes of details, not %v", key, want)
		return false
	}
	text, _ := got.(string)
	return strings.HasPrefix(text, prefix)
}

// samples returns the events of events/, by file name.
func samples(t *testing.T) map[string]map[string]any {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "events", "*.json"))
	if err != nil || len(files) < 7 {
		t.Fatalf("want at least one sample of each state, got %v, %v", files, err)
	}
	out := map[string]map[string]any{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var event map[string]any
		if err := json.Unmarshal(data, &event); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out[strings.TrimSuffix(filepath.Base(file), ".json")] = event
	}
	return out
}

// reached returns the samples that a stack's rules send to each target.
func reached(t *testing.T, resources map[string]any) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for id, rule := range each(t, resources, "AWS::Events::Rule") {
		pattern := object(rule["EventPattern"])
		if pattern == nil {
			continue // scheduled
		}
		if rule["State"] != nil && rule["State"] != "ENABLED" {
			t.Errorf("rule %s is %v", id, rule["State"])
		}
		targets, _ := rule["Targets"].([]any)
		for name, event := range samples(t) {
			if !matches(t, pattern, event, eventKeys) {
				continue
			}
			for _, target := range targets {
				arn := object(target)["Arn"]
				to, ok := referred(arn)
				if !ok {
					to = text(t, arn)
				}
				out[to] = append(out[to], name)
			}
		}
	}
	for to := range out {
		slices.Sort(out[to])
	}
	return out
}

func TestEventRules_RouteEachSampleEvent(t *testing.T) {
	earlier := map[string]string{"VaultAddr": "https://vault.example:8200", "DeprovisionOn": "shutting-down"}
	for name, row := range map[string]struct {
		parameters map[string]string
		gone       []string
	}{
		"on terminated":    {bare, []string{"terminate-hook", "terminated"}},
		"on shutting-down": {earlier, []string{"shutting-down", "terminate-hook", "terminated"}},
	} {
		got := reached(t, resolved(t, row.parameters))
		if !slices.Equal(got["ProvisionQueue"], []string{"launch-hook", "pending", "running", "running-elsewhere", "tag-change"}) {
			t.Errorf("%s: provision gets %q, want starts in every account and launch hooks", name, got["ProvisionQueue"])
		}
		if !slices.Equal(got["DeprovisionQueue"], row.gone) {
			t.Errorf("%s: deprovision gets %q, want %q: a stopped instance comes back", name, got["DeprovisionQueue"], row.gone)
		}
		if len(got) != 2 {
			t.Errorf("%s: events go to %v", name, got)
		}
	}
}

func TestEventRules_IgnoreOtherHooks(t *testing.T) {
	for id, rule := range each(t, resolved(t, bare), "AWS::Events::Rule") {
		pattern := object(rule["EventPattern"])
		for name, event := range samples(t) {
			if pattern == nil || !strings.HasSuffix(name, "-hook") {
				continue
			}
			object(event["detail"])["LifecycleHookName"] = "drain"
			if matches(t, pattern, event, eventKeys) {
				t.Errorf("rule %s matches another team's hook: this stack would end its wait", id)
			}
		}
	}
}

// Otherwise each launch would cost one more look-up of the instance.
func TestEventRules_IgnoreTheFunctionsOwnTag(t *testing.T) {
	for name, row := range map[string]struct {
		parameters map[string]string
		keys       []any
		want       bool
	}{
		"the functions' own tag":            {full, []any{"vault-identity"}, false},
		"another tag":                       {full, []any{"role"}, true},
		"both at once":                      {full, []any{"vault-identity", "role"}, true},
		"a tag, with none of the functions": {bare, []any{"vault-identity"}, true},
	} {
		event := samples(t)["tag-change"]
		object(event["detail"])["changed-tag-keys"] = row.keys
		rule := each(t, resolved(t, row.parameters), "AWS::Events::Rule")["TagRule"]
		if got := matches(t, object(rule["EventPattern"]), event, eventKeys); got != row.want {
			t.Errorf("%s: the rule matches: %v, want %v", name, got, row.want)
		}
		elsewhere := member()
		elsewhere["ReadyTag"] = row.parameters["ReadyTag"]
		forward := each(t, resolve(t, shared(t, memberTemplate), elsewhere), "AWS::Events::Rule")["ForwardTagsRule"]
		if got := matches(t, object(forward["EventPattern"]), event, eventKeys); got != row.want {
			t.Errorf("%s: a member account forwards it: %v, want %v", name, got, row.want)
		}
	}
}

func TestEventPattern_TypoIsAnError(t *testing.T) {
	running := samples(t)["running"]
	for name, pattern := range map[string]string{
		"a key that no event has":       `{"detail_type": ["x"]}`,
		"a key that no detail has":      `{"detail": {"State": ["running"]}}`,
		"text instead of a list":        `{"source": "aws.ec2"}`,
		"what the test cannot evaluate": `{"source": [{"prefix": "aws."}]}`,
	} {
		var p map[string]any
		if err := json.Unmarshal([]byte(pattern), &p); err != nil {
			t.Fatal(err)
		}
		if probe := new(testing.T); matches(probe, p, running, eventKeys) && !probe.Failed() || !probe.Failed() {
			t.Errorf("%s: %s should be an error", name, pattern)
		}
	}
}
