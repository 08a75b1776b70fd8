// Package access holds IAM policies against AWS's service authorization reference, and evaluates requests against them as AWS
// does. It knows the elements and operators that this project's policies use and returns an error for any other, so that no part
// of a policy is left out unnoticed.
package access

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Statement is a statement of an IAM policy.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
type Statement struct {
	Sid        string
	Effect     string // Allow or Deny
	Principals []Principal
	Actions    []string
	Resources  []string
	Conditions []Condition
}

// Principal is one value of a statement's Principal element. Kind is AWS or Service. Value is an account, an ARN, the name of a
// service, or "*".
type Principal struct{ Kind, Value string }

// Condition is one key of a statement's Condition element.
type Condition struct {
	Operator Operator
	Key      string
	Values   []string
}

// Operator is a condition operator: ForAllValues:StringEquals has the set ForAllValues and the base StringEquals.
type Operator struct{ Set, Base string }

func (o Operator) String() string {
	if o.Set == "" {
		return o.Base
	}
	return o.Set + ":" + o.Base
}

// Parse returns the statements of a policy document whose intrinsic functions are replaced by values.
func Parse(document any) ([]Statement, error) {
	object, ok := document.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("a policy document is an object, not %T", document)
	}
	if object["Version"] != "2012-10-17" {
		return nil, fmt.Errorf("the policy's Version is %v, want 2012-10-17", object["Version"])
	}
	var statements []Statement
	for _, entry := range many(object["Statement"]) {
		statement, err := ParseStatement(entry)
		if err != nil {
			return nil, err
		}
		statements = append(statements, statement)
	}
	if len(statements) == 0 {
		return nil, errors.New("the policy has no statement")
	}
	return statements, nil
}

// ParseStatement returns one statement of a policy.
func ParseStatement(entry any) (Statement, error) {
	object, ok := entry.(map[string]any)
	if !ok {
		return Statement{}, fmt.Errorf("a statement is an object, not %T", entry)
	}
	var s Statement
	var err error
	fault := func(element string, problem error) error {
		return fmt.Errorf("reading the %s of the statement %v: %w", element, entry, problem)
	}
	for element, value := range object {
		switch element {
		case "Sid":
			s.Sid, err = text(value)
		case "Effect":
			s.Effect, err = text(value)
		case "Principal":
			s.Principals, err = principals(value)
		case "Action":
			s.Actions, err = texts(value)
		case "Resource":
			s.Resources, err = texts(value)
		case "Condition":
			s.Conditions, err = conditions(value)
		default:
			err = errors.New("the lab does not know this element")
		}
		if err != nil {
			return Statement{}, fault(element, err)
		}
	}
	if s.Effect != "Allow" && s.Effect != "Deny" {
		return Statement{}, fault("Effect", fmt.Errorf("want Allow or Deny, not %q", s.Effect))
	}
	return s, nil
}

func principals(value any) ([]Principal, error) {
	if value == "*" {
		return []Principal{{"AWS", "*"}}, nil
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("want an object or *, not %v", value)
	}
	var out []Principal
	for _, kind := range slices.Sorted(maps.Keys(object)) {
		if kind != "AWS" && kind != "Service" {
			return nil, fmt.Errorf("the lab does not know principals of the kind %s", kind)
		}
		values, err := texts(object[kind])
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			out = append(out, Principal{kind, v})
		}
	}
	return out, nil
}

func conditions(value any) ([]Condition, error) {
	operators, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("want an object, not %v", value)
	}
	var out []Condition
	for _, name := range slices.Sorted(maps.Keys(operators)) {
		var operator Operator
		if set, base, found := strings.Cut(name, ":"); found {
			operator = Operator{set, base}
		} else {
			operator = Operator{Base: name}
		}
		keys, ok := operators[name].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("want the keys of %s, not %v", name, operators[name])
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			values, err := texts(keys[key])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			out = append(out, Condition{operator, key, values})
		}
	}
	return out, nil
}

func texts(value any) ([]string, error) {
	var out []string
	for _, entry := range many(value) {
		one, err := text(entry)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	if len(out) == 0 {
		return nil, errors.New("it has no value")
	}
	return out, nil
}

func text(value any) (string, error) {
	s, ok := value.(string)
	if !ok || s == "" {
		return "", fmt.Errorf("want a text, not %v", value)
	}
	if strings.Contains(s, "${") {
		return "", fmt.Errorf("the lab does not know policy variables, as in %s", s)
	}
	return s, nil
}

func many(value any) []any {
	if list, ok := value.([]any); ok {
		return list
	}
	return []any{value}
}
