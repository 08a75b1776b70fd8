package bootstrap

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"
	"go.yaml.in/yaml/v3"
)

// resource is one instance of a resource with all expressions evaluated.
type resource struct {
	kind       string
	attributes map[string]any
}

// bodies returns the blocks of a module's files.
func bodies(t *testing.T, dir string) []*hclsyntax.Block {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no module in %s: %v", dir, err)
	}
	var blocks []*hclsyntax.Block
	for _, file := range files {
		parsed, problems := hclparse.NewParser().ParseHCLFile(file)
		if problems.HasErrors() {
			t.Fatal(problems)
		}
		body, ok := parsed.Body.(*hclsyntax.Body)
		if !ok {
			t.Fatalf("%s is not in native HCL syntax", file)
		}
		blocks = append(blocks, body.Blocks...)
	}
	return blocks
}

// variables returns the defaults of a module's variables; cty.NilVal without a default.
func variables(t *testing.T, dir string) map[string]cty.Value {
	t.Helper()
	out := map[string]cty.Value{}
	for _, b := range bodies(t, dir) {
		if b.Type != "variable" {
			continue
		}
		out[b.Labels[0]] = cty.NilVal
		if standard := b.Body.Attributes["default"]; standard != nil {
			out[b.Labels[0]] = must(t, standard.Expr, &hcl.EvalContext{})
		}
	}
	return out
}

func must(t *testing.T, e hcl.Expression, in *hcl.EvalContext) cty.Value {
	t.Helper()
	v, problems := e.Value(in)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	return v
}

// evaluate returns a module's resources for some values of its variables, as Terraform plans them for an empty Vault.
func evaluate(t *testing.T, dir string, given map[string]any) []resource {
	t.Helper()
	vars := variables(t, dir)
	for name, value := range given {
		if _, is := vars[name]; !is {
			t.Fatalf("the module has no variable %s", name)
		}
		vars[name] = fromJSON(t, value)
	}
	locals := map[string]cty.Value{}
	in := &hcl.EvalContext{Functions: functions(), Variables: map[string]cty.Value{
		"var": cty.ObjectVal(vars), "path": cty.ObjectVal(map[string]cty.Value{"module": cty.StringVal(dir)}),
	}}
	pending := map[string]hcl.Expression{}
	var resources []*hclsyntax.Block
	for _, b := range bodies(t, dir) {
		switch b.Type {
		case "locals":
			for name, a := range b.Body.Attributes {
				pending[name] = a.Expr
			}
		case "resource":
			resources = append(resources, b)
		}
	}
	for len(pending) > 0 {
		before := len(pending)
		for name, e := range pending {
			if ready(e, "local", locals) {
				locals[name] = must(t, e, in)
				in.Variables["local"] = cty.ObjectVal(locals)
				delete(pending, name)
			}
		}
		if len(pending) == before {
			t.Fatalf("these locals refer to each other: %v", pending)
		}
	}
	return instances(t, resources, in)
}

// instances evaluates resources in the order of the file, where each comes after the ones that it refers to.
func instances(t *testing.T, resources []*hclsyntax.Block, in *hcl.EvalContext) []resource {
	t.Helper()
	var out []resource
	for _, b := range resources {
		made := map[string]cty.Value{}
		each := must(t, b.Body.Attributes["for_each"].Expr, in)
		for it := each.ElementIterator(); it.Next(); {
			key, value := it.Element()
			if each.Type().IsSetType() {
				key = value
			}
			scope := in.NewChild()
			scope.Variables = map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"key": key, "value": value})}
			attributes := map[string]cty.Value{}
			r := resource{kind: b.Labels[0], attributes: map[string]any{}}
			for name, a := range b.Body.Attributes {
				if name != "for_each" && name != "depends_on" {
					attributes[name] = must(t, a.Expr, scope)
					r.attributes[name] = toJSON(t, attributes[name])
				}
			}
			made[key.AsString()] = cty.ObjectVal(attributes)
			out = append(out, r)
		}
		kind := map[string]cty.Value{}
		if known, ok := in.Variables[b.Labels[0]]; ok {
			kind = known.AsValueMap()
		}
		kind[b.Labels[1]] = cty.ObjectVal(made)
		in.Variables[b.Labels[0]] = cty.ObjectVal(kind)
	}
	return out
}

// ready reports whether all references of an expression below a root name are known.
func ready(e hcl.Expression, root string, known map[string]cty.Value) bool {
	for _, traversal := range e.Variables() {
		if traversal.RootName() != root {
			continue
		}
		attribute, ok := traversal[1].(hcl.TraverseAttr)
		if _, is := known[attribute.Name]; !ok || !is {
			return false
		}
	}
	return true
}

// functions returns Terraform's functions that the module uses.
// https://developer.hashicorp.com/terraform/language/functions
func functions() map[string]function.Function {
	text := func(impl func(args []cty.Value) (cty.Value, error), parameters int) function.Function {
		spec := &function.Spec{Type: function.StaticReturnType(cty.DynamicPseudoType), Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return impl(args) }}
		for range parameters {
			spec.Params = append(spec.Params, function.Parameter{Type: cty.String})
		}
		return function.New(spec)
	}
	return map[string]function.Function{
		"concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc, "distinct": stdlib.DistinctFunc, "flatten": stdlib.FlattenFunc,
		"indent": stdlib.IndentFunc, "join": stdlib.JoinFunc, "jsonencode": stdlib.JSONEncodeFunc, "keys": stdlib.KeysFunc, "merge": stdlib.MergeFunc, "sort": stdlib.SortFunc, "trimsuffix": stdlib.TrimSuffixFunc,
		"lookup": stdlib.LookupFunc, "regex": stdlib.RegexFunc, "replace": stdlib.ReplaceFunc, "toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)), "try": tryfunc.TryFunc,
		"nonsensitive": function.New(&function.Spec{
			Params: []function.Parameter{{Type: cty.DynamicPseudoType}},
			Type:   func(args []cty.Value) (cty.Type, error) { return args[0].Type(), nil },
			Impl:   func(args []cty.Value, _ cty.Type) (cty.Value, error) { return args[0], nil },
		}),
		"base64encode": text(func(args []cty.Value) (cty.Value, error) {
			return cty.StringVal(base64.StdEncoding.EncodeToString([]byte(args[0].AsString()))), nil
		}, 1),
		"length": text(func(args []cty.Value) (cty.Value, error) {
			return cty.NumberIntVal(int64(len(args[0].AsString()))), nil
		}, 1),
		"split": stdlib.SplitFunc, "values": stdlib.ValuesFunc, "substr": stdlib.SubstrFunc, "trimspace": stdlib.TrimSpaceFunc,
		"file": text(func(args []cty.Value) (cty.Value, error) {
			data, err := os.ReadFile(args[0].AsString())
			return cty.StringVal(string(data)), err
		}, 1),
		"dirname": text(func(args []cty.Value) (cty.Value, error) { return cty.StringVal(filepath.Dir(args[0].AsString())), nil }, 1),
		"fileset": text(func(args []cty.Value) (cty.Value, error) {
			dir := args[0].AsString()
			files, err := filepath.Glob(filepath.Join(dir, args[1].AsString()))
			names := []cty.Value{}
			for _, f := range files {
				names = append(names, cty.StringVal(strings.TrimPrefix(strings.TrimPrefix(f, filepath.Clean(dir)), "/")))
			}
			if err != nil || len(names) == 0 {
				return cty.SetValEmpty(cty.String), err
			}
			return cty.SetVal(names), nil
		}, 2),
		"yamldecode": text(func(args []cty.Value) (cty.Value, error) {
			var v any
			if err := yaml.Unmarshal([]byte(args[0].AsString()), &v); err != nil {
				return cty.NilVal, err
			}
			return encode(v)
		}, 1),
	}
}

func encode(v any) (cty.Value, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return cty.NilVal, err
	}
	kind, err := ctyjson.ImpliedType(data)
	if err != nil {
		return cty.NilVal, err
	}
	return ctyjson.Unmarshal(data, kind)
}

func fromJSON(t *testing.T, v any) cty.Value {
	t.Helper()
	out, err := encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func toJSON(t *testing.T, v cty.Value) any {
	t.Helper()
	data, err := ctyjson.Marshal(v, v.Type())
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// flagNames returns the names of the flags that a command declares.
func flagNames(t *testing.T, source string) []string {
	t.Helper()
	var names []string
	for _, m := range regexp.MustCompile(`\bf\.\w+\((?:&[\w.]+, )?"([a-z-]+)"`).FindAllStringSubmatch(source, -1) {
		names = append(names, m[1])
	}
	if len(names) < 15 {
		t.Fatalf("found only the flags %q", fmt.Sprint(names))
	}
	slices.Sort(names)
	return names
}
