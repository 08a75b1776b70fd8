package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
)

// isStateful reports by type whether a resource's replacement or deletion loses something: data, messages, logs, or the ARN to
// which Vault's roles and other accounts' trust policies are bound. The others are made again from the template.
var isStateful = map[string]bool{
	"AWS::DynamoDB::Table": true, "AWS::SQS::Queue": true, "AWS::Logs::LogGroup": true, "AWS::IAM::Role": true,
	"AWS::Events::Rule": false, "AWS::Events::EventBusPolicy": false, "AWS::SQS::QueuePolicy": false, "AWS::IAM::ManagedPolicy": false,
	"AWS::Lambda::Function": false, "AWS::Lambda::Permission": false, "AWS::Lambda::EventSourceMapping": false, "AWS::Lambda::EventInvokeConfig": false,
	"AWS::CloudWatch::Alarm": false, "AWS::CloudWatch::Dashboard": false,
}

// replacers are the parameters that replace or remove a stateful resource, by template and resource. These are roles alone, and
// docs/upgrades.md has the steps for each.
var replacers = map[string]map[string][]string{
	filepath.Join(root, "template.yaml"): {
		"ProvisionFunctionRole": {"RolePath"}, "DeprovisionFunctionRole": {"RolePath"}, "ReconcileFunctionRole": {"RolePath"},
	},
	memberTemplate: {
		"ForwardRole": {"CentralEventBusArn", "RolePath"},
		"MemberRole":  {"CentralEventBusArn", "MemberRoleName", "RolePath", "RolesRegion"},
		"VaultRole":   {"RolePath", "RolesRegion", "VaultPrincipalArns", "VaultRoleName"},
	},
}

// schema holds the paths of a resource type's properties, such as /properties/Path, with which CloudFormation replaces a resource.
// https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html
type schema struct {
	CreateOnly []string // when one of them changes, always or under some condition
	Identifier []string // the resource's name
}

// readSchemas prints the schemas of the types in its arguments, over all regions, from cfn-lint's copies of AWS's own.
const readSchemas = `
import json, sys
from cfnlint.helpers import REGIONS
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
found = {}
for kind in sys.argv[1:]:
    create_only, identifier = set(), set()
    for _, s in PROVIDER_SCHEMA_MANAGER.get_resource_schemas_by_regions(kind, REGIONS):
        create_only.update(s.schema.get("createOnlyProperties", []), s.schema.get("conditionalCreateOnlyProperties", []))
        identifier.update(s.schema["primaryIdentifier"])
    found[kind] = {"CreateOnly": sorted(create_only), "Identifier": sorted(identifier)}
json.dump(found, sys.stdout)
`

// python runs a script with arguments and input in the lab's Python, and returns its output.
func python(t *testing.T, input, script string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, partstest.Python(t), append([]string{"-c", script}, args...)...)
	cmd.Stdin, cmd.Env = strings.NewReader(input), append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python: %v\n%s", err, problem.String())
	}
	return out
}

var knownSchemas sync.Map // of the types in isStateful, since the schemas cost the start of a Python

// schemas returns the schemas of all types of the templates.
func schemas(t *testing.T) map[string]schema {
	t.Helper()
	if known, ok := knownSchemas.Load("all"); ok {
		return known.(map[string]schema)
	}
	var all map[string]schema
	if err := json.Unmarshal(python(t, "", readSchemas, slices.Sorted(maps.Keys(isStateful))...), &all); err != nil {
		t.Fatal(err)
	}
	for kind, s := range all {
		if len(s.Identifier) == 0 {
			t.Fatalf("cfn-lint has no schema of %s: nothing would be tested", kind)
		}
	}
	if !slices.Contains(all["AWS::IAM::Role"].CreateOnly, "/properties/Path") {
		t.Fatalf("the schemas were not understood: %v", all)
	}
	knownSchemas.Store("all", all)
	return all
}

// at returns the value at a schema's path in a resource's properties, or nil. A function on the way, or a list, is returned whole.
func at(properties map[string]any, path string) any {
	value := any(properties)
	for step := range strings.SplitSeq(strings.TrimPrefix(path, "/properties/"), "/") {
		if _, _, isFunction := intrinsic(value); isFunction || step == "*" {
			return value
		}
		value = object(value)[step]
	}
	return value
}

// reach collects the parameters on which a value of a template depends.
type reach struct {
	template   map[string]any
	schemas    map[string]schema
	followed   map[string]bool // conditions and resources
	parameters map[string]bool
}

// follow collects the parameters of a value, through all functions and conditions.
func (r reach) follow(v any) {
	function, argument, _ := intrinsic(v)
	switch function {
	case "Ref":
		r.name(fmt.Sprint(argument))
		return
	case "Condition":
		if name, ok := argument.(string); ok { // a policy's Condition is an object
			r.condition(name)
		}
	case "Fn::GetAtt":
		id, _ := LogicalID(v)
		r.name(id)
		return
	case "Fn::If":
		branches, _ := argument.([]any)
		r.condition(fmt.Sprint(branches[0]))
	case "Fn::Sub":
		text := argument
		if operands, ok := argument.([]any); ok {
			text = operands[0]
		}
		for _, m := range placeholder.FindAllStringSubmatch(fmt.Sprint(text), -1) {
			r.name(m[1])
		}
	}
	switch v := v.(type) {
	case map[string]any:
		for _, entry := range v {
			r.follow(entry)
		}
	case []any:
		for _, entry := range v {
			r.follow(entry)
		}
	}
}

// placeholder is a ${Name} or ${Name.Attribute} of Fn::Sub; ${!Name} is text.
var placeholder = regexp.MustCompile(`\$\{([^!.}]+)(?:\.[^}]*)?\}`)

func (r reach) name(name string) {
	if _, ok := object(r.template["Parameters"])[name]; ok {
		r.parameters[name] = true
	} else if _, ok := object(r.template["Resources"])[name]; ok {
		r.resource(name)
	}
}

func (r reach) condition(name string) {
	if !r.followed["condition "+name] {
		r.followed["condition "+name] = true
		r.follow(object(r.template["Conditions"])[name])
	}
}

// resource collects the parameters that replace or remove a resource. A replaced one has another name, so it also replaces
// each resource with that name in a create-only property.
func (r reach) resource(id string) {
	if r.followed["resource "+id] {
		return
	}
	r.followed["resource "+id] = true
	resource := object(object(r.template["Resources"])[id])
	if condition, ok := resource["Condition"].(string); ok {
		r.condition(condition)
	}
	for _, path := range r.schemas[fmt.Sprint(resource["Type"])].CreateOnly {
		r.follow(at(object(resource["Properties"]), path))
	}
}

// A replaced table is an empty ledger, a replaced queue has lost its messages, and Vault refuses the login of a replaced role.
func TestReplacement_ReachesNoStatefulResource(t *testing.T) {
	for _, path := range templates {
		template := shared(t, path)
		for id, resource := range object(template["Resources"]) {
			kind := fmt.Sprint(object(resource)["Type"])
			stateful, known := isStateful[kind]
			if !known {
				t.Errorf("%s: %s is of type %s: add to isStateful whether its replacement loses something", path, id, kind)
			}
			if !stateful {
				continue
			}
			r := reach{template: template, schemas: schemas(t), followed: map[string]bool{}, parameters: map[string]bool{}}
			r.resource(id)
			if got, want := slices.Sorted(maps.Keys(r.parameters)), replacers[path][id]; !slices.Equal(got, want) {
				t.Errorf("%s: %q replace or remove %s, want %q: every update with another value would lose it", path, got, id, want)
			}
			if kind != "AWS::IAM::Role" && replacers[path][id] != nil {
				t.Errorf("%s: %s holds data, no parameter may replace it", path, id)
			}
		}
		for id := range replacers[path] {
			if object(template["Resources"])[id] == nil {
				t.Errorf("%s has no resource %s", path, id)
			}
		}
	}
}
