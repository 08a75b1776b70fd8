package stack

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
)

func TestEventRules_MatchExactlyThePublishedEvents(t *testing.T) {
	rows, _ := corpus(t)
	all, events := map[string]map[string]any{}, map[string]map[string]any{}
	for _, c := range columns() {
		for rule, pattern := range patterns(t, c) {
			all[c.name+"/"+rule] = pattern
		}
	}
	for _, row := range rows {
		events[row.name] = row.event
	}
	if len(events) != len(rows) {
		t.Errorf("%d of the %d rows are there twice", len(rows)-len(events), len(rows))
	}
	answered := answers(t, all, events)
	for _, row := range rows {
		for _, c := range columns() {
			got := []string{}
			for name, matched := range answered {
				if rule, ofColumn := strings.CutPrefix(name, c.name+"/"); ofColumn && slices.Contains(matched, row.name) {
					got = append(got, rule)
				}
			}
			slices.Sort(got)
			if want, ok := row.rules[c.name]; !ok || !slices.Equal(got, want) {
				t.Errorf("%s: in the stack %s it matches %q, the table says %q", row.name, c.name, got, want)
			}
		}
	}
}

// Otherwise a part could be wrong, or missing, and no row would show it.
func TestEventCorpus_DecidesEachPartOfAPattern(t *testing.T) {
	rows, _ := corpus(t)
	tried := 0
	for _, c := range columns() {
		for rule, pattern := range patterns(t, c) {
			for part, changed := range without(pattern) {
				tried++
				if !slices.ContainsFunc(rows, func(row published) bool {
					now, err := matches(changed, row.event)
					before, errBefore := matches(pattern, row.event)
					if err = errors.Join(err, errBefore); err != nil {
						t.Fatalf("%s: %s without %s: %v", c.name, rule, part, err)
					}
					return now != before
				}) {
					t.Errorf("%s: %s could lose %s, and every row would be as before: add one that needs it", c.name, rule, part)
				}
			}
		}
	}
	if tried < 60 {
		t.Errorf("tried %d parts of patterns: they are taken apart wrongly", tried)
	}
}

// without returns the pattern without each of its fields, and without each of several alternatives of a field, by the part that
// is gone.
func without(pattern map[string]any) map[string]map[string]any {
	out := map[string]map[string]any{}
	changed := func(key string, value any) map[string]any {
		copied := maps.Clone(pattern)
		if copied[key] = value; value == nil {
			delete(copied, key)
		}
		return copied
	}
	for key, want := range pattern {
		out[key] = changed(key, nil)
		for part, below := range without(object(want)) {
			if len(below) > 0 {
				out[key+"."+part] = changed(key, below)
			}
		}
		alternatives, _ := want.([]any)
		for i, alternative := range alternatives {
			if len(alternatives) > 1 {
				out[fmt.Sprintf("%s: %v", key, alternative)] = changed(key, slices.Concat(alternatives[:i], alternatives[i+1:]))
			}
		}
	}
	return out
}

func TestEventCorpus_NamesItsSources(t *testing.T) {
	rows, sources := corpus(t)
	for file, source := range sources {
		if !strings.Contains(source, "://") && !strings.Contains(source, "docs/events.md") {
			t.Errorf("%s is published at %q: want a page", file, source)
		}
	}
	known := func(folder string, isKnown func(name string) bool) {
		files, err := filepath.Glob(filepath.Join(folder, "*.json"))
		if err != nil || len(files) < 7 {
			t.Fatalf("%s has the files %q, %v", folder, files, err)
		}
		for _, file := range files {
			if !isKnown(filepath.Base(file)) {
				t.Errorf("%s is in no table", file)
			}
		}
	}
	used := func(file string) bool {
		return slices.ContainsFunc(rows, func(row published) bool { return row.name == file })
	}
	known(corpusFolder, func(name string) bool { return sources[name] != "" && used(name) })
	known(filepath.Join(root, "events"), func(name string) bool { return used("events/" + name) })
}

// An event that costs a message must be one that the functions read. A published field that they refuse would never be seen
// with events of our own making.
func TestEventCorpus_IsReadByTheFunctionsWhereItMatches(t *testing.T) {
	rows, _ := corpus(t)
	read := 0
	for _, row := range rows {
		if len(row.rules["plain"])+len(row.rules["early"])+len(row.rules["full"]) == 0 {
			continue
		}
		payload, err := event.Parse([]byte(text(t, row.event)))
		if err != nil || len(payload.Records) != 1 || payload.Records[0].Err != nil {
			t.Errorf("%s reaches a function, which refuses it: %v, %+v", row.name, err, payload.Records)
		}
		read++
	}
	if read < 25 {
		t.Errorf("only %d rows reach a function: the table is read wrongly", read)
	}
}

func TestEventRules_SendToOneTargetEach(t *testing.T) {
	targets := map[string]string{
		"ProvisionRule": "ProvisionQueue", "TagRule": "ProvisionQueue", "LaunchHookRule": "ProvisionQueue",
		"DeprovisionRule": "DeprovisionQueue", "TerminateHookRule": "DeprovisionQueue", "FindingRule": "DeprovisionQueue",
		"ForwardRule": "CentralEventBusArn", "ForwardHooksRule": "CentralEventBusArn", "ForwardTagsRule": "CentralEventBusArn",
	}
	for _, c := range columns() {
		rules := each(t, resolve(t, shared(t, c.template), c.parameters), "AWS::Events::Rule")
		for rule := range patterns(t, c) {
			list, _ := rules[rule]["Targets"].([]any)
			if len(list) != 1 {
				t.Fatalf("%s: %s has %d targets, want one", c.name, rule, len(list))
			}
			if to, _ := LogicalID(object(list[0])["Arn"]); to != targets[rule] || to == "" {
				t.Errorf("%s: %s sends to %q, want %q", c.name, rule, to, targets[rule])
			}
			if by, _ := LogicalID(object(list[0])["RoleArn"]); (targets[rule] == "CentralEventBusArn") != (by == "ForwardRole") {
				t.Errorf("%s: %s sends as %q, want the forwarding role for the other account's bus and no role for a queue", c.name, rule, by)
			}
		}
	}
}

func TestEventPattern_KnowsItsLanguageAndRefusesTheRest(t *testing.T) {
	const happened = `{"source": "aws.ec2", "resources": ["one", "two"], "none": [], "detail": {"state": "running", "count": 5, "on": true, "nothing": null}}`
	known, pattern, events := map[string]bool{}, map[string]map[string]any{}, map[string]map[string]any{"it": parse(t, happened)}
	for name, row := range map[string]struct {
		pattern string
		want    bool
	}{
		"one of several values":               {`{"source": ["aws.tag", "aws.ec2"]}`, true},
		"another value":                       {`{"source": ["aws.tag"]}`, false},
		"another case":                        {`{"source": ["AWS.ec2"]}`, false},
		"fields below":                        {`{"source": ["aws.ec2"], "detail": {"state": ["running"]}}`, true},
		"one field of two":                    {`{"source": ["aws.ec2"], "detail": {"state": ["stopped"]}}`, false},
		"a field that the event lacks":        {`{"detail": {"missing": ["x"]}}`, false},
		"an object that it lacks":             {`{"missing": {"state": ["running"]}}`, false},
		"one value of a list":                 {`{"resources": ["two", "three"]}`, true},
		"no value of a list":                  {`{"resources": ["three"]}`, false},
		"a number":                            {`{"detail": {"count": [5]}}`, true},
		"a number as text":                    {`{"detail": {"count": ["5"]}}`, false},
		"true and null":                       {`{"detail": {"on": [true], "nothing": [null]}}`, true},
		"prefix":                              {`{"source": [{"prefix": "aws."}]}`, true},
		"prefix, in the middle":               {`{"source": [{"prefix": "ec2"}]}`, false},
		"prefix of a number":                  {`{"detail": {"count": [{"prefix": "5"}]}}`, false},
		"prefix of a value of a list":         {`{"resources": [{"prefix": "tw"}]}`, true},
		"anything but a text":                 {`{"source": [{"anything-but": "aws.ec2"}]}`, false},
		"anything but others":                 {`{"source": [{"anything-but": ["aws.tag", "aws.s3"]}]}`, true},
		"anything but a number":               {`{"detail": {"count": [{"anything-but": [4, 5]}]}}`, false},
		"anything but a prefix":               {`{"source": [{"anything-but": {"prefix": "aws."}}]}`, false},
		"anything but, a list with others":    {`{"resources": [{"anything-but": ["one"]}]}`, true},
		"anything but, a list without others": {`{"resources": [{"anything-but": ["one", "two"]}]}`, false},
		"anything but, an empty list":         {`{"none": [{"anything-but": ["one"]}]}`, false},
		"anything but, no field":              {`{"missing": [{"anything-but": ["one"]}]}`, false},
		"exists":                              {`{"detail": {"state": [{"exists": true}], "missing": [{"exists": false}]}}`, true},
		"exists, below no object":             {`{"missing": {"state": [{"exists": false}]}}`, true},
		"exists, an object":                   {`{"detail": [{"exists": true}]}`, false},
		"an operator or a value":              {`{"source": [{"prefix": "x"}, "aws.ec2"]}`, true},
	} {
		known[name], pattern[name] = row.want, parse(t, row.pattern)
	}
	answered := answers(t, pattern, events)
	for name, want := range known {
		if got := len(answered[name]) == 1; got != want {
			t.Errorf("%s: %v matches: %v, want %v", name, pattern[name], got, want)
		}
	}
	for name, text := range map[string]string{
		"text instead of a list":        `{"source": "aws.ec2"}`,
		"an empty list":                 `{"source": []}`,
		"an empty object":               `{"detail": {}}`,
		"a list in a list":              `{"source": [["aws.ec2"]]}`,
		"another operator":              `{"source": [{"suffix": "ec2"}]}`,
		"a misspelt operator":           `{"source": [{"anything_but": "x"}]}`,
		"two operators in an object":    `{"source": [{"prefix": "a", "exists": true}]}`,
		"prefix without case":           `{"source": [{"prefix": {"equals-ignore-case": "AWS"}}]}`,
		"anything but another operator": `{"source": [{"anything-but": {"suffix": "x"}}]}`,
		"anything but mixed values":     `{"source": [{"anything-but": ["x", 1]}]}`,
		"anything but nothing":          `{"source": [{"anything-but": []}]}`,
		"exists as text":                `{"source": [{"exists": "true"}]}`,
		"or":                            `{"$or": [{"source": ["aws.ec2"]}, {"region": ["x"]}]}`,
		"an error beside a mismatch":    `{"detail": {"state": [{"suffix": "x"}]}, "source": ["aws.tag"]}`,
	} {
		if fits, err := matches(parse(t, text), events["it"]); err == nil {
			t.Errorf("%s: %s is answered with %v, want an error", name, text, fits)
		}
	}
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	v := map[string]any{}
	if err := set(v, "v: "+text); err != nil {
		t.Fatal(err)
	}
	return object(v["v"])
}
