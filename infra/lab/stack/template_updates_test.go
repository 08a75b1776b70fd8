package stack

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

var update = flag.Bool("update", false, "write testdata/updates.md and docs/upgrades.md's table instead of comparing")

// interrupting are the properties whose change CloudFormation's reference calls an update with "some interruptions", of the types
// in isStateful. The schemas do not have them.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-dynamodb-table.html
var interrupting = map[string][]string{"AWS::DynamoDB::Table": {"AttributeDefinitions", "SSESpecification"}}

// change is an update of a stack: some parameters, in most rows one, get other values.
type change struct {
	to    map[string]string
	given map[string]string // what the template's rules demand before and after
	note  string            // the operator's next step, for docs/upgrades.md
}

// name returns the parameters and, where there are several rows of one, the value.
func (c change) name(all []change) string {
	names := slices.Sorted(maps.Keys(c.to))
	several := 0
	for _, other := range all {
		if slices.Equal(slices.Sorted(maps.Keys(other.to)), names) {
			several++
		}
	}
	if several > 1 {
		return "`" + names[0] + "=" + c.to[names[0]] + "`"
	}
	return "`" + strings.Join(names, "`, `") + "`"
}

// one returns the update of one parameter.
func one(name, value string) change { return change{to: map[string]string{name: value}} }

// effects are the logical IDs of the resources that an update changes, by the kind of change.
type effects struct {
	refused     []string // CloudFormation fails the update: the resource would be replaced by another of the same name
	replaced    []string
	added       []string
	removed     []string
	interrupted []string // updated with some interruptions
	updated     []string // without an interruption
}

// filled returns v with each reference to a known name replaced by its value. References to resources stay.
func filled(v any, values map[string]any) any {
	function, argument, _ := intrinsic(v)
	if function == "Ref" {
		if value, ok := values[fmt.Sprint(argument)]; ok {
			return fmt.Sprint(value)
		}
	}
	if text, ok := argument.(string); ok && function == "Fn::Sub" {
		return map[string]any{"Fn::Sub": placeholder.ReplaceAllStringFunc(text, func(found string) string {
			if value, ok := values[strings.Trim(found, "${}")]; ok {
				return fmt.Sprint(value)
			}
			return found
		})}
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, entry := range v {
			out[key] = filled(entry, values)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, entry := range v {
			out[i] = filled(entry, values)
		}
		return out
	}
	return v
}

// stackOf returns the resources that CloudFormation makes with these parameters, which the template's rules must accept.
func stackOf(t *testing.T, template map[string]any, parameters map[string]string) map[string]any {
	t.Helper()
	d, err := newDecider(template, parameters, map[string]string{"AWS::Region": region, "AWS::AccountId": parts.AccountID, "AWS::Partition": "aws"})
	if err == nil {
		err = d.rules(object(template["Rules"]))
	}
	if err != nil {
		t.Fatalf("with %v: %v", parameters, err)
	}
	resources, err := d.prune(object(template["Resources"]))
	if err != nil {
		t.Fatal(err)
	}
	return object(filled(resources, d.values))
}

// mentions reports whether a value refers to one of these resources.
func mentions(v any, resources map[string]bool) bool {
	if id, ok := LogicalID(v); ok {
		return resources[id]
	}
	switch v := v.(type) {
	case map[string]any:
		for _, entry := range v {
			if mentions(entry, resources) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(entry any) bool { return mentions(entry, resources) })
	case string:
		return slices.ContainsFunc(placeholder.FindAllStringSubmatch(v, -1), func(m []string) bool { return resources[m[1]] })
	}
	return false
}

// compare returns the changes of an update from one state of a stack to another.
func compare(schemas map[string]schema, before, after map[string]any) effects {
	var e effects
	replaced := map[string]bool{}
	for again := true; again; { // a replaced resource has another name, and so replaces others
		again = false
		for id, r := range after {
			if before[id] != nil && !replaced[id] && isReplaced(schemas, object(before[id]), object(r), replaced) {
				replaced[id], again = true, true
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(after)) {
		old, r := object(before[id]), object(after[id])
		switch {
		case old == nil:
			e.added = append(e.added, id)
		case replaced[id] && keepsName(schemas, old, r):
			e.refused = append(e.refused, id)
		case replaced[id]:
			e.replaced = append(e.replaced, id)
		case isInterrupted(old, r):
			e.interrupted = append(e.interrupted, id)
		case !reflect.DeepEqual(old, r) || mentions(r["Properties"], replaced):
			e.updated = append(e.updated, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if after[id] == nil {
			e.removed = append(e.removed, id)
		}
	}
	return e
}

func isReplaced(schemas map[string]schema, old, r map[string]any, replaced map[string]bool) bool {
	if old["Type"] != r["Type"] {
		return true
	}
	return slices.ContainsFunc(schemas[fmt.Sprint(r["Type"])].CreateOnly, func(path string) bool {
		value := at(object(r["Properties"]), path)
		return !reflect.DeepEqual(at(object(old["Properties"]), path), value) || mentions(value, replaced)
	})
}

// keepsName reports whether the template names the resource, and the same before and after. CloudFormation makes the new resource
// before it deletes the old one, so such a replacement fails.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-name.html
func keepsName(schemas map[string]schema, old, r map[string]any) bool {
	for _, path := range schemas[fmt.Sprint(r["Type"])].Identifier {
		value := at(object(r["Properties"]), path)
		if value == nil || !reflect.DeepEqual(at(object(old["Properties"]), path), value) {
			return false
		}
	}
	return true
}

func isInterrupted(old, r map[string]any) bool {
	return slices.ContainsFunc(interrupting[fmt.Sprint(r["Type"])], func(property string) bool {
		return !reflect.DeepEqual(object(old["Properties"])[property], object(r["Properties"])[property])
	})
}

// with returns parameters and others that come before them.
func with(parameters map[string]string, others ...map[string]string) map[string]string {
	all := maps.Clone(parameters)
	for _, o := range others {
		maps.Copy(all, o)
	}
	return all
}

// page returns the table of all updates for testdata/updates.md, and the rows of docs/upgrades.md: those that do more than
// update a resource.
func page(t *testing.T) (whole, short string) {
	t.Helper()
	var all, few strings.Builder
	all.WriteString("The effect of each parameter on its stack, changed alone from the default, beside the parameters that it needs. Written by make golden.\n")
	few.WriteString("\n\n| stack | parameter | CloudFormation | next step |\n| --- | --- | --- | --- |\n")
	for _, s := range changedStacks {
		fmt.Fprintf(&all, "\n## %s\n\n| parameter | replaced | added | removed | interrupted | updated | refused |\n| --- | --- | --- | --- | --- | --- | --- |\n", s.name)
		for _, c := range s.changes {
			before := with(s.first, c.given)
			e := compare(schemas(t), stackOf(t, shared(t, s.template), before), stackOf(t, shared(t, s.template), with(before, c.to)))
			fmt.Fprintf(&all, "| %s |", c.name(s.changes))
			for _, ids := range [][]string{e.replaced, e.added, e.removed, e.interrupted, e.updated, e.refused} {
				fmt.Fprintf(&all, " %s |", strings.Join(ids, ", "))
			}
			all.WriteString("\n")
			var does []string
			for _, kind := range []struct {
				verb string
				ids  []string
			}{{"refuses to replace", e.refused}, {"replaces", e.replaced}, {"adds", e.added}, {"removes", e.removed}, {"interrupts", e.interrupted}} {
				if len(kind.ids) > 0 {
					does = append(does, kind.verb+" `"+strings.Join(kind.ids, "`, `")+"`")
				}
			}
			if len(does) > 0 {
				fmt.Fprintf(&few, "| %s | %s | %s | %s |\n", s.name, c.name(s.changes), strings.Join(does, "; "), c.note)
			}
		}
	}
	return all.String(), few.String() + "\n"
}

func TestUpdates_DoWhatThePageSays(t *testing.T) {
	whole, short := page(t)
	golden := filepath.Join("testdata", "updates.md")
	upgrades := filepath.Join(root, "docs", "upgrades.md")
	text, err := os.ReadFile(upgrades)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- parameters: written by make golden -->", "<!-- end -->"
	before, rest, found := strings.Cut(string(text), begin)
	old, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no generated part between %q and %q", upgrades, begin, end)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(whole), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(upgrades, []byte(before+begin+short+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != short {
		t.Errorf("%s differs from the templates: run make golden\nwant\n%s\ngot\n%s", upgrades, short, old)
	}
	if was, err := os.ReadFile(golden); err != nil || string(was) != whole {
		t.Errorf("%s: %v, differs from the templates: run make golden\nwant\n%s\ngot\n%s", golden, err, whole, was)
	}
}

// Each update is tried there and back, from the fewest parameters and from the most.
func TestUpdates_KeepStatefulResources(t *testing.T) {
	for _, s := range changedStacks {
		template, seen := shared(t, s.template), map[string]map[string]bool{}
		for _, c := range s.changes {
			for _, first := range []map[string]string{s.first, s.most} {
				before := with(first, c.given)
				is, becomes := stackOf(t, template, before), stackOf(t, template, with(before, c.to))
				there, back := compare(schemas(t), is, becomes), compare(schemas(t), becomes, is)
				for _, id := range slices.Concat(there.replaced, there.refused, there.removed, back.removed) {
					kind := fmt.Sprint(object(object(template["Resources"])[id])["Type"])
					if !isStateful[kind] {
						continue
					}
					if c.note == "" {
						t.Errorf("%s: %v replaces or removes %s: add to the row what the operator must do", s.name, c.to, id)
					}
					for parameter := range c.to {
						if seen[id] == nil {
							seen[id] = map[string]bool{}
						}
						seen[id][parameter] = true
						if !slices.Contains(replacers[s.template][id], parameter) && len(c.to) == 1 {
							t.Errorf("%s: %v replaces or removes %s of type %s: what it holds would be lost", s.name, c.to, id, kind)
						}
					}
				}
			}
		}
		for id, parameters := range replacers[s.template] {
			for _, p := range parameters {
				if !seen[id][p] {
					t.Errorf("%s: no update shows how %s replaces or removes %s", s.name, p, id)
				}
			}
		}
	}
}

func TestUpdates_ChangeEveryParameter(t *testing.T) {
	for _, s := range changedStacks {
		template := shared(t, s.template)
		parameters, changed := object(template["Parameters"]), map[string]bool{}
		for _, c := range s.changes {
			for name, value := range c.to {
				changed[name] = true
				standard := fmt.Sprint(object(parameters[name])["Default"])
				if parameters[name] == nil || value == with(s.first, c.given)[name] || value == standard {
					t.Errorf("%s: %s=%s is no change of a parameter", s.name, name, value)
				}
				if !accepts(object(parameters[name]), value) {
					t.Errorf("%s: the template does not accept %s=%s", s.name, name, value)
				}
			}
		}
		for name := range parameters {
			if !changed[name] {
				t.Errorf("%s: no update changes %s: add a second value for it to the table", s.name, name)
			}
		}
	}
}

// expandAll prints the name of each set of parameters with which AWS's transform makes another template than without any.
const expandAll = `
import json, sys
import expand
path, region = sys.argv[1:]
plain = expand.expand(path, region)
for name, parameters in json.load(sys.stdin).items():
    if expand.expand(path, region, parameters) != plain:
        print(name)
`

// CloudFormation expands the template with the stack's parameters, and the lab without. Were the results different, these tests
// would compare other resources than an update does.
func TestExpansion_IsTheSameForAllParameters(t *testing.T) {
	parameters := object(product(t)["Parameters"])
	passed := func(values map[string]string) map[string]any { // as CloudFormation passes them
		all := map[string]any{}
		for name, value := range values {
			all[name] = value
			if object(parameters[name])["Type"] == "CommaDelimitedList" {
				all[name] = strings.Split(value, ",")
			}
		}
		return all
	}
	sets, together := map[string]any{"the fewest": passed(bare), "the most": passed(full)}, maps.Clone(full)
	for _, c := range centralChanges {
		maps.Copy(together, c.to)
	}
	sets["all changed"] = passed(together)
	if different := python(t, text(t, sets), expandAll, filepath.Join(root, "template.yaml"), region); len(different) > 0 {
		t.Errorf("the expansion is different with %s", different)
	}
}
