package bootstrap

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"go.yaml.in/yaml/v3"
)

// stackModule is a Terraform module that deploys a template.
type stackModule struct {
	dir, template string // paths from the root
	ownVariables  []string
	ownOutputs    []string
}

var stackModules = []stackModule{
	{
		dir: "infra/terraform/stack", template: "template.yaml",
		ownVariables: []string{"name", "template_url", "iam_role_arn", "tags"}, ownOutputs: []string{"name", "hook_prefix", "function_roles"},
	},
	{
		dir: "infra/terraform/member-account", template: "infra/member-account/template.yaml",
		ownVariables: []string{"name", "template_url", "template_body", "iam_role_arn", "tags"},
	},
}

// parameter is a parameter of a CloudFormation template.
type parameter struct {
	Type           string   `yaml:"Type"`
	Description    string   `yaml:"Description"`
	Default        *string  `yaml:"Default"`
	AllowedPattern string   `yaml:"AllowedPattern"`
	AllowedValues  []string `yaml:"AllowedValues"`
	MinValue       string   `yaml:"MinValue"`
	MaxValue       string   `yaml:"MaxValue"`
}

// interfaceOf is what a caller of a template sees.
type interfaceOf struct {
	Parameters map[string]parameter `yaml:"Parameters"`
	Outputs    map[string]struct {
		Condition string `yaml:"Condition"`
	} `yaml:"Outputs"`
}

func (m stackModule) path() string { return filepath.Join(root, m.dir) }

func (m stackModule) read(t *testing.T) interfaceOf {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, m.template))
	if err != nil {
		t.Fatal(err)
	}
	var template interfaceOf
	if err := yaml.Unmarshal(text, &template); err != nil || len(template.Parameters) == 0 || len(template.Outputs) == 0 {
		t.Fatalf("%s: %d parameters, %d outputs, %v", m.template, len(template.Parameters), len(template.Outputs), err)
	}
	return template
}

// blocks returns a module's blocks of a type by their last label, and fails if two have the same.
func blocks(t *testing.T, dir, kind string) map[string]*hclsyntax.Block {
	t.Helper()
	out := map[string]*hclsyntax.Block{}
	for _, b := range bodies(t, dir) {
		if b.Type != kind {
			continue
		}
		name := b.Labels[len(b.Labels)-1]
		if out[name] != nil {
			t.Errorf("%s: two blocks %s %q", dir, kind, name)
		}
		out[name] = b
	}
	return out
}

var (
	acronym = regexp.MustCompile(`([A-Z])([A-Z][a-z])`)
	hump    = regexp.MustCompile(`([a-z0-9])([A-Z])`)
)

// snake returns a name of the template in Terraform's form: VaultIAMServerId is vault_iam_server_id.
func snake(name string) string {
	return strings.ToLower(hump.ReplaceAllString(acronym.ReplaceAllString(name, "${1}_$2"), "${1}_$2"))
}

// hclType returns the type of the variable for a parameter.
func (p parameter) hclType() string {
	switch {
	case p.Type == "Number":
		return "number"
	case p.Type == "CommaDelimitedList":
		return "list(string)"
	case slices.Equal(p.AllowedValues, []string{"true", "false"}):
		return "bool"
	default:
		return "string"
	}
}

// hclDefault returns the default of the variable for a parameter, as HCL; empty without one.
func (p parameter) hclDefault() string {
	switch {
	case p.Default == nil:
		return ""
	case p.hclType() == "list(string)":
		return "[" + strings.Join(quoted(strings.FieldsFunc(*p.Default, func(r rune) bool { return r == ',' })), ", ") + "]"
	case p.hclType() == "string":
		return quote(*p.Default)
	default:
		return *p.Default
	}
}

// hclCondition returns the condition by which the variable refuses what the template would; empty if its type suffices.
func (p parameter) hclCondition(variable string) string {
	matches := func(value string) string {
		return fmt.Sprintf("can(regex(%s, %s))", quote(p.AllowedPattern), value)
	}
	values := p.AllowedValues
	switch {
	case p.hclType() == "bool":
		return ""
	case values != nil && p.hclType() == "string":
		values = quoted(values)
		fallthrough
	case values != nil:
		return fmt.Sprintf("contains([%s], var.%s)", strings.Join(values, ", "), variable)
	case p.MinValue != "" && p.MaxValue != "":
		return fmt.Sprintf("var.%s >= %s && var.%s <= %s", variable, p.MinValue, variable, p.MaxValue)
	case p.AllowedPattern != "" && p.hclType() == "list(string)":
		return fmt.Sprintf("alltrue([for v in var.%s : %s])", variable, matches("v"))
	case p.AllowedPattern != "":
		return matches("var." + variable)
	default:
		return ""
	}
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", "$${", "%{", "%%{")

// quote returns a text as HCL.
func quote(text string) string { return `"` + escapes.Replace(text) + `"` }

func quoted(texts []string) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = quote(text)
	}
	return out
}

// variableFor returns the block to add for a parameter, and its line of the map of parameters.
func variableFor(name string, p parameter) (block, line string) {
	variable := snake(name)
	text := fmt.Sprintf("variable %q {\n  description = %s\n  type        = %s\n", variable, quote(p.Description), p.hclType())
	if standard := p.hclDefault(); standard != "" {
		text += "  default     = " + standard + "\n"
	}
	text += "  nullable    = false\n"
	if condition := p.hclCondition(variable); condition != "" {
		text += "\n  validation {\n    condition     = " + condition + "\n    error_message = \"Must be …\"\n  }\n"
	}
	value := "var." + variable
	if p.hclType() == "list(string)" {
		value = `join(",", ` + value + ")"
	}
	return text + "}\n", fmt.Sprintf("    %s = %s", name, value)
}

// source returns an expression's text, without the differences that terraform fmt makes.
func source(t *testing.T, e hcl.Expression) string {
	t.Helper()
	text, err := os.ReadFile(e.Range().Filename)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(e.Range().SliceBytes(text)))
}

// A person who deploys with Terraform has each setting of the template, with its default, and a mistake shows in the plan.
func TestTerraform_HasVariableForEachParameter(t *testing.T) {
	for _, m := range stackModules {
		declared := blocks(t, m.path(), "variable")
		for name, p := range m.read(t).Parameters {
			block, line := variableFor(name, p)
			variable := declared[snake(name)]
			if variable == nil {
				t.Errorf("%s has the parameter %s, and %s no variable for it. Add to a variables file there\n\n%s\nand to parameters in %s/main.tf\n\n%s\n", m.template, name, m.dir, block, m.dir, line)
				continue
			}
			delete(declared, snake(name))
			for _, difference := range differences(t, variable, snake(name), p) {
				t.Errorf("%s: variable %s: %s, as the parameter %s of %s. The whole block:\n\n%s", m.dir, snake(name), difference, name, m.template, block)
			}
		}
		for _, name := range m.ownVariables {
			if declared[name] == nil {
				t.Errorf("%s has no variable %s", m.dir, name)
			}
			delete(declared, name)
		}
		for name := range declared {
			t.Errorf("%s: variable %s has no parameter in %s: remove it, or name it in ownVariables of this test", m.dir, name, m.template)
		}
	}
}

// differences returns the changes that a variable needs.
func differences(t *testing.T, variable *hclsyntax.Block, name string, p parameter) []string {
	t.Helper()
	var out []string
	attributes := variable.Body.Attributes
	is := func(attribute string) string {
		if attributes[attribute] == nil {
			return ""
		}
		return source(t, attributes[attribute].Expr)
	}
	for attribute, want := range map[string]string{"type": p.hclType(), "default": p.hclDefault(), "nullable": "false"} {
		if is(attribute) != want {
			out = append(out, fmt.Sprintf("%s is %s, want %s", attribute, cmp.Or(is(attribute), "not set"), cmp.Or(want, "not set")))
		}
	}
	if is("description") == "" || is("description") == `""` {
		out = append(out, "it needs a description")
	}
	var conditions, want []string
	for _, b := range variable.Body.Blocks {
		conditions = append(conditions, source(t, b.Body.Attributes["condition"].Expr))
	}
	if condition := p.hclCondition(name); condition != "" {
		want = []string{condition}
	}
	if !slices.Equal(conditions, want) {
		out = append(out, fmt.Sprintf("its conditions are\n%q, want\n%q", conditions, want))
	}
	return out
}

// base returns a value for each variable of a module: its default, or something of its type.
func base(t *testing.T, dir string) map[string]cty.Value {
	t.Helper()
	out := variables(t, dir)
	for name, b := range blocks(t, dir, "variable") {
		if out[name] != cty.NilVal {
			continue
		}
		out[name] = cty.StringVal("some")
		if source(t, b.Body.Attributes["type"].Expr) == "list(string)" {
			out[name] = cty.TupleVal([]cty.Value{cty.StringVal("some")})
		}
	}
	return out
}

// stackResource returns a module's one resource.
func (m stackModule) stackResource(t *testing.T) *hclsyntax.Block {
	t.Helper()
	resources := blocks(t, m.path(), "resource")
	if len(resources) != 1 || resources["this"] == nil || resources["this"].Labels[0] != "aws_cloudformation_stack" {
		t.Fatalf("%s: want the one resource aws_cloudformation_stack.this: the template is the only description of a stack", m.dir)
	}
	return resources["this"]
}

// passed returns the parameters that a stack gets for these variables.
func passed(t *testing.T, stack *hclsyntax.Block, vars map[string]cty.Value) map[string]string {
	t.Helper()
	in := &hcl.EvalContext{Functions: functions(), Variables: map[string]cty.Value{"var": cty.ObjectVal(vars)}}
	value, err := convert.Convert(must(t, stack.Body.Attributes["parameters"].Expr, in), cty.Map(cty.String))
	if err != nil {
		t.Fatalf("parameters is no map of strings: %v", err)
	}
	out := map[string]string{}
	for name, v := range value.AsValueMap() {
		out[name] = v.AsString()
	}
	return out
}

// other returns a value of a parameter's type that differs from its default, and the value as CloudFormation receives it.
func (p parameter) other() (cty.Value, string) {
	switch p.hclType() {
	case "number":
		return cty.NumberIntVal(4711), "4711"
	case "bool":
		return cty.BoolVal(p.Default == nil || *p.Default != "true"), fmt.Sprint(p.Default == nil || *p.Default != "true")
	case "list(string)":
		return cty.TupleVal([]cty.Value{cty.StringVal("one"), cty.StringVal("two")}), "one,two"
	default:
		return cty.StringVal("another"), "another"
	}
}

// One variable is changed at a time, so that two that are mixed up show.
func TestTerraform_PassesEachVariableOn(t *testing.T) {
	for _, m := range stackModules {
		vars, stack := base(t, m.path()), m.stackResource(t)
		before := passed(t, stack, vars)
		parameters := m.read(t).Parameters
		for name, p := range parameters {
			value, want := p.other()
			changed := maps.Clone(vars)
			changed[snake(name)] = value
			after := passed(t, stack, changed)
			if after[name] != want {
				_, line := variableFor(name, p)
				t.Errorf("%s: with another %s the stack gets %s=%q, want %q. main.tf needs in parameters\n\n%s\n", m.dir, snake(name), name, after[name], want, line)
			}
			for other := range parameters {
				if other != name && after[other] != before[other] {
					t.Errorf("%s: %s changes the parameter %s too", m.dir, snake(name), other)
				}
			}
			if p.Default != nil && before[name] != *p.Default {
				t.Errorf("%s: without %s the stack gets %s=%q, want the default %q", m.dir, snake(name), name, before[name], *p.Default)
			}
		}
		for name := range before {
			if _, is := parameters[name]; !is {
				t.Errorf("%s passes the parameter %s, which %s does not have: CloudFormation would refuse the stack", m.dir, name, m.template)
			}
		}
	}
}

// deployed returns a scope in which the template's stack exists, with the name of each output as its value.
func (m stackModule) deployed(t *testing.T, vars map[string]cty.Value, without string) *hcl.EvalContext {
	t.Helper()
	outputs := map[string]cty.Value{}
	for name := range m.read(t).Outputs {
		if name != without {
			outputs[name] = cty.StringVal(name)
		}
	}
	this := cty.ObjectVal(map[string]cty.Value{"name": vars["name"], "outputs": cty.MapVal(outputs)})
	return &hcl.EvalContext{Functions: functions(), Variables: map[string]cty.Value{
		"var": cty.ObjectVal(vars), "aws_cloudformation_stack": cty.ObjectVal(map[string]cty.Value{"this": this}),
	}}
}

func TestTerraform_ReturnsEachOutput(t *testing.T) {
	for _, m := range stackModules {
		declared := blocks(t, m.path(), "output")
		for name, o := range m.read(t).Outputs {
			value := fmt.Sprintf(`aws_cloudformation_stack.this.outputs[%q]`, name)
			if o.Condition != "" {
				value = "try(" + value + ", null)"
			}
			if b := declared[snake(name)]; b != nil {
				m.checkOutput(t, b, name, value)
			} else {
				t.Errorf("%s has the output %s, and %s does not return it. Add to outputs.tf there\n\noutput %q {\n  description = \"…\"\n  value       = %s\n}\n", m.template, name, m.dir, snake(name), value)
			}
			delete(declared, snake(name))
		}
		for name := range declared {
			if !slices.Contains(m.ownOutputs, name) {
				t.Errorf("%s: output %s is none of %s: remove it, or name it in ownOutputs of this test", m.dir, name, m.template)
			}
		}
	}
}

// checkOutput compares an output with the one of the template. An output with a condition is null where the stack has none; any
// other is an error there.
func (m stackModule) checkOutput(t *testing.T, b *hclsyntax.Block, name, value string) {
	t.Helper()
	vars, e := base(t, m.path()), b.Body.Attributes["value"].Expr
	if v := must(t, e, m.deployed(t, vars, "")); !v.RawEquals(cty.StringVal(name)) {
		t.Errorf("%s: output %s is %s, want value = %s", m.dir, snake(name), source(t, e), value)
	}
	v, problems := e.Value(m.deployed(t, vars, name))
	mayLack := strings.HasPrefix(value, "try(")
	if mayLack != !problems.HasErrors() || mayLack && !v.IsNull() {
		t.Errorf("%s: output %s of a stack without %s is %#v (%v), want value = %s", m.dir, snake(name), name, v, problems, value)
	}
	if b.Body.Attributes["description"] == nil {
		t.Errorf("%s: output %s has no description", m.dir, snake(name))
	}
}
