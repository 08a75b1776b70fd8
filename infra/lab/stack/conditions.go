package stack

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// decider evaluates a template's conditions for one set of parameter values.
type decider struct {
	values     map[string]any // parameters and pseudo parameters
	conditions map[string]any
	mappings   map[string]any
}

// newDecider returns a decider for the given parameter values and the template's
// defaults. The error names every parameter without a value and every unknown one.
func newDecider(template map[string]any, given map[string]string, pseudo map[string]string) (*decider, error) {
	d := &decider{values: map[string]any{}, conditions: object(template["Conditions"]), mappings: object(template["Mappings"])}
	var faults []error
	parameters := object(template["Parameters"])
	for name, p := range parameters {
		if value, ok := given[name]; ok {
			d.values[name] = value
		} else if value, ok := object(p)["Default"]; ok {
			d.values[name] = fmt.Sprint(value)
		} else {
			faults = append(faults, fmt.Errorf("parameter %s has neither a value nor a default", name))
		}
	}
	for name := range given {
		if _, ok := parameters[name]; !ok {
			faults = append(faults, fmt.Errorf("the template has no parameter %s", name))
		}
	}
	for name, value := range pseudo {
		d.values[name] = value
	}
	return d, errors.Join(faults...)
}

// holds reports whether a named condition is true.
func (d *decider) holds(name string) (bool, error) {
	expression, ok := d.conditions[name]
	if !ok {
		return false, fmt.Errorf("the template has no condition %s", name)
	}
	yes, err := d.truth(expression)
	if err != nil {
		return false, fmt.Errorf("evaluating condition %s: %w", name, err)
	}
	return yes, nil
}

func (d *decider) truth(expression any) (bool, error) {
	function, argument, ok := intrinsic(expression)
	if !ok {
		return false, fmt.Errorf("%v is not a condition", expression)
	}
	if function == "Condition" {
		name, _ := argument.(string)
		return d.holds(name)
	}
	operands, _ := argument.([]any)
	switch function {
	case "Fn::Equals":
		if len(operands) != 2 {
			return false, fmt.Errorf("Fn::Equals takes two values, not %d", len(operands))
		}
		left, err := d.value(operands[0])
		if err != nil {
			return false, err
		}
		right, err := d.value(operands[1])
		if err != nil {
			return false, err
		}
		return fmt.Sprint(left) == fmt.Sprint(right), nil
	case "Fn::Contains", "Fn::EachMemberEquals":
		return d.members(function, operands)
	case "Fn::Not", "Fn::And", "Fn::Or":
		all, some := true, false
		for _, operand := range operands {
			yes, err := d.truth(operand)
			if err != nil {
				return false, err
			}
			all, some = all && yes, some || yes
		}
		switch function {
		case "Fn::And":
			return all, nil
		case "Fn::Or":
			return some, nil
		}
		return !some, nil
	}
	return false, fmt.Errorf("the lab cannot evaluate %s; add it in infra/lab/stack/conditions.go", function)
}

// value resolves an operand of a condition: a literal, a parameter or a mapping.
func (d *decider) value(v any) (any, error) {
	function, argument, ok := intrinsic(v)
	if !ok {
		return v, nil
	}
	switch function {
	case "Ref":
		name, _ := argument.(string)
		if value, ok := d.values[name]; ok {
			return value, nil
		}
		return nil, fmt.Errorf("a condition may refer to parameters only, not to %s", name)
	case "Fn::FindInMap":
		found := any(d.mappings)
		keys, _ := argument.([]any)
		for _, key := range keys {
			key, err := d.value(key)
			if err != nil {
				return nil, err
			}
			if found, ok = object(found)[fmt.Sprint(key)]; !ok {
				return nil, fmt.Errorf("Fn::FindInMap %v: not found", keys)
			}
		}
		return found, nil
	case "Fn::Sub":
		return d.substitute(fmt.Sprint(argument))
	case "Fn::Select":
		return d.part(argument)
	case "Fn::Join":
		operands, _ := argument.([]any)
		if len(operands) != 2 {
			return nil, fmt.Errorf("Fn::Join takes a separator and a list, not %v", argument)
		}
		list, err := d.value(operands[1])
		if err != nil {
			return nil, err
		}
		// A list parameter's value is a comma list.
		return strings.ReplaceAll(fmt.Sprint(list), ",", fmt.Sprint(operands[0])), nil
	}
	return nil, fmt.Errorf("the lab cannot resolve %s in a condition; add it in infra/lab/stack/conditions.go", function)
}

// part resolves an Fn::Select of an Fn::Split.
func (d *decider) part(argument any) (any, error) {
	operands, _ := argument.([]any)
	if len(operands) != 2 {
		return nil, fmt.Errorf("Fn::Select takes an index and a list, not %v", argument)
	}
	function, of, _ := intrinsic(operands[1])
	split, _ := of.([]any)
	if function != "Fn::Split" || len(split) != 2 {
		return nil, fmt.Errorf("the lab resolves Fn::Select of Fn::Split alone in a condition, not %v", operands[1])
	}
	text, err := d.value(split[1])
	if err != nil {
		return nil, err
	}
	parts := strings.Split(fmt.Sprint(text), fmt.Sprint(split[0]))
	index, err := strconv.Atoi(fmt.Sprint(operands[0]))
	if err != nil || index < 0 || index >= len(parts) {
		return nil, fmt.Errorf("Fn::Select: %q has no part %v", parts, operands[0])
	}
	return parts[index], nil
}

// substitute replaces each ${…} of an Fn::Sub that has no variables of its own.
func (d *decider) substitute(text string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		value, known := d.values[name]
		if !closed || !known {
			return "", fmt.Errorf("a condition may refer to parameters only, not to ${%s", rest)
		}
		fmt.Fprint(&out, value)
		text = after
	}
}

// absent marks a value that AWS::NoValue removes.
type absent struct{}

// resolve returns v with every Fn::If replaced by its chosen branch, every Fn::FindInMap by its value, and every
// AWS::NoValue removed, also from lists, where moto would leave a null.
func (d *decider) resolve(v any) (any, error) {
	if function, argument, ok := intrinsic(v); ok {
		if function == "Ref" && argument == "AWS::NoValue" {
			return absent{}, nil
		}
		switch function {
		case "Fn::If":
			return d.choose(argument)
		case "Fn::FindInMap": // moto uses another key for a number than the template's text
			return d.value(v)
		}
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, entry := range v {
			resolved, err := d.resolve(entry)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			if !isAbsent(resolved) {
				out[key] = resolved
			}
		}
		return out, nil
	case []any:
		out := make([]any, 0, len(v))
		for i, entry := range v {
			resolved, err := d.resolve(entry)
			if err != nil {
				return nil, fmt.Errorf("%d: %w", i, err)
			}
			if !isAbsent(resolved) {
				out = append(out, resolved)
			}
		}
		return out, nil
	}
	return v, nil
}

// choose resolves the chosen branch of an Fn::If.
func (d *decider) choose(argument any) (any, error) {
	branches, _ := argument.([]any)
	if len(branches) != 3 {
		return nil, fmt.Errorf("Fn::If takes three values, not %d", len(branches))
	}
	name, _ := branches[0].(string)
	yes, err := d.holds(name)
	if err != nil {
		return nil, err
	}
	if yes {
		return d.resolve(branches[1])
	}
	return d.resolve(branches[2])
}

// prune resolves a section's entries and drops those with a false condition.
func (d *decider) prune(section map[string]any) (map[string]any, error) {
	kept := map[string]any{}
	for name, entry := range section {
		entry := maps.Clone(object(entry))
		if condition, ok := entry["Condition"].(string); ok {
			yes, err := d.holds(condition)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if !yes {
				continue
			}
			delete(entry, "Condition")
		}
		resolved, err := d.resolve(entry)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		kept[name] = resolved
	}
	return kept, nil
}

func isAbsent(v any) bool { _, yes := v.(absent); return yes }

// intrinsic returns the function and argument of {"Fn::X": argument}; ok is false for any other value.
func intrinsic(v any) (function string, argument any, ok bool) {
	m, isMap := v.(map[string]any)
	if !isMap || len(m) != 1 {
		return "", nil, false
	}
	for name, argument := range m {
		if name == "Ref" || name == "Condition" || (len(name) > 4 && name[:4] == "Fn::") {
			return name, argument, true
		}
	}
	return "", nil, false
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
