package stack

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// prepared is a template that moto can run, and the resources removed from it.
type prepared struct {
	template map[string]any
	mappings map[string]map[string]any // event source mappings by logical ID
}

// ec2Event is a target's transformer that rebuilds the whole EC2 event, because
// moto's EventBridge delivers events without their account.
var ec2Event = map[string]any{
	"InputPathsMap": map[string]any{
		"id": "$.id", "dt": "$.detail-type", "source": "$.source", "account": "$.account", "time": "$.time",
		"region": "$.region", "resources": "$.resources", "detail": "$.detail",
	},
	"InputTemplate": `{"version":"0","id":"<id>","detail-type":"<dt>","source":"<source>","account":"<account>",` +
		`"time":<time>,"region":"<region>","resources":<resources>,"detail":<detail>}`,
}

// emptyZip is a package without a file: moto unpacks the code of a function that it updates.
const emptyZip = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA=="

// noEvent is a pattern that matches no event, for scheduled rules: moto lets a rule without a pattern match every event,
// cannot invoke its function, and answers every PutEvents with a 500.
var noEvent = map[string]any{"source": []any{"lab.schedule-only"}}

// prepare evaluates conditions and adapts the template to moto. The comment of each
// change states moto's behaviour without it.
func prepare(expanded map[string]any, d *decider) (*prepared, error) {
	if err := d.rules(object(expanded["Rules"])); err != nil {
		return nil, fmt.Errorf("the parameters do not fit together: %w", err)
	}
	resources, err := d.prune(object(expanded["Resources"]))
	if err != nil {
		return nil, fmt.Errorf("resolving resources: %w", err)
	}
	outputs, err := d.prune(object(expanded["Outputs"]))
	if err != nil {
		return nil, fmt.Errorf("resolving outputs: %w", err)
	}
	p := &prepared{template: maps.Clone(expanded), mappings: map[string]map[string]any{}}
	for id, r := range resources {
		resource := object(r)
		properties := object(resource["Properties"])
		spellNumbers(properties, object(expanded["Parameters"]))
		if err := d.numbers(properties, object(expanded["Parameters"])); err != nil {
			return nil, fmt.Errorf("%s: %w", id, err)
		}
		switch resource["Type"] {
		case "AWS::Lambda::Function":
			// moto would require an existing bucket; the code runs outside moto anyway.
			properties["Code"] = map[string]any{"ZipFile": emptyZip}
		case "AWS::Lambda::EventSourceMapping":
			// moto would receive every message itself and try to use docker.
			p.mappings[id] = properties
			delete(resources, id)
		case "AWS::Events::Rule":
			if _, scheduled := properties["ScheduleExpression"]; scheduled {
				properties["EventPattern"] = noEvent
				continue
			}
			targets, _ := properties["Targets"].([]any)
			for _, target := range targets {
				t := object(target)
				if t["InputTransformer"] == nil && t["Input"] == nil && t["InputPath"] == nil {
					t["InputTransformer"] = ec2Event
				}
			}
		}
	}
	dropDangling(resources)
	p.template["Resources"], p.template["Outputs"] = resources, outputs
	for _, section := range []string{"Conditions", "Rules", "Metadata"} {
		delete(p.template, section)
	}
	return p, nil
}

// spellNumbers changes a function's variables that refer to parameters of type Number to text, as AWS does: moto would keep
// a number, and the SDK could not read the function's configuration.
func spellNumbers(function, parameters map[string]any) {
	variables := object(object(function["Environment"])["Variables"])
	for name, value := range variables {
		parameter, _ := object(value)["Ref"].(string)
		if object(parameters[parameter])["Type"] == "Number" {
			variables[name] = map[string]any{"Fn::Sub": "${" + parameter + "}"}
		}
	}
}

// numbers replaces each property that refers to a parameter of type Number by its value: moto would keep text where the API
// has a number.
func (d *decider) numbers(v any, parameters map[string]any) error {
	switch v := v.(type) {
	case map[string]any:
		for key, entry := range v {
			number, is, err := d.number(entry, parameters)
			if err != nil {
				return err
			}
			if is {
				v[key] = number
			} else if err := d.numbers(entry, parameters); err != nil {
				return err
			}
		}
	case []any:
		for _, entry := range v {
			if err := d.numbers(entry, parameters); err != nil {
				return err
			}
		}
	}
	return nil
}

// number returns the value of a Ref to a parameter of type Number; is reports whether v is one.
func (d *decider) number(v any, parameters map[string]any) (value float64, is bool, err error) {
	function, name, ok := intrinsic(v)
	if !ok || function != "Ref" || object(parameters[fmt.Sprint(name)])["Type"] != "Number" {
		return 0, false, nil
	}
	value, err = strconv.ParseFloat(fmt.Sprint(d.values[fmt.Sprint(name)]), 64)
	if err != nil {
		return 0, false, fmt.Errorf("parameter %s: %w", name, err)
	}
	return value, true, nil
}

// dropDangling removes dependencies on resources that were removed.
func dropDangling(resources map[string]any) {
	for _, r := range resources {
		resource := object(r)
		var wanted []any
		switch on := resource["DependsOn"].(type) {
		case string:
			wanted = []any{on}
		case []any:
			wanted = on
		default:
			continue
		}
		wanted = slices.DeleteFunc(slices.Clone(wanted), func(on any) bool { return resources[fmt.Sprint(on)] == nil })
		if len(wanted) == 0 {
			delete(resource, "DependsOn")
		} else {
			resource["DependsOn"] = wanted
		}
	}
}

// LogicalID returns the resource that a Ref, a GetAtt or a plain ${X.Arn} refers to, and false for any other value.
func LogicalID(v any) (string, bool) {
	function, argument, ok := intrinsic(v)
	if !ok {
		return "", false
	}
	switch a := argument.(type) {
	case []any:
		if function == "Fn::GetAtt" && len(a) > 0 {
			id, ok := a[0].(string)
			return id, ok
		}
	case string:
		switch function {
		case "Ref":
			return a, true
		case "Fn::GetAtt":
			id, _, ok := strings.Cut(a, ".")
			return id, ok
		case "Fn::Sub":
			inner, found := strings.CutPrefix(a, "${")
			inner, closed := strings.CutSuffix(inner, "}")
			id, _, _ := strings.Cut(inner, ".")
			return id, found && closed && !strings.Contains(inner, "${")
		}
	}
	return "", false
}
