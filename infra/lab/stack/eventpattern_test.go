package stack

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// matches reports whether an event matches a pattern of exact values, prefix, numeric by one bound, anything-but and exists. It fails for a pattern
// that EventBridge would refuse and for all other operators, also where another field already decides.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
func matches(pattern, event map[string]any) (bool, error) {
	if len(pattern) == 0 {
		return false, errors.New("an empty object is no pattern")
	}
	fits := true
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(pattern)) {
		value, exists := event[key]
		ok, err := matchesField(pattern[key], value, exists)
		if err == nil && strings.HasPrefix(key, "$") {
			err = errors.New("this matcher does not know it")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
		fits = fits && ok
	}
	return fits, errors.Join(faults...)
}

func matchesField(want, value any, exists bool) (bool, error) {
	switch want := want.(type) {
	case map[string]any:
		if _, isList := value.([]any); isList {
			return false, errors.New("this matcher does not look into the objects of a list")
		}
		return matches(want, object(value)) // an object that is missing lacks its fields
	case []any:
		if len(want) == 0 {
			return false, errors.New("an empty list is no pattern")
		}
		values, err := leaves(value, exists)
		if err != nil {
			return false, err
		}
		fits := false
		for _, alternative := range want {
			ok, err := matchesAny(alternative, values)
			if err != nil {
				return false, err
			}
			fits = fits || ok
		}
		return fits, nil
	}
	return false, fmt.Errorf("%v is neither an object nor a list", want)
}

// leaves returns the values of a field: none of an object, those of a list, else the one.
func leaves(value any, exists bool) ([]any, error) {
	switch value := value.(type) {
	case map[string]any:
		return nil, nil
	case []any:
		for _, v := range value {
			switch v.(type) {
			case map[string]any, []any:
				return nil, errors.New("this matcher does not look into the lists and objects of a list")
			}
		}
		return value, nil
	}
	if !exists {
		return nil, nil
	}
	return []any{value}, nil
}

// matchesAny reports whether one alternative of a field's pattern matches one of the field's values. A list matches by any of
// its values, for anything-but too.
func matchesAny(alternative any, values []any) (bool, error) {
	operator, isOperator := alternative.(map[string]any)
	if !isOperator {
		if _, isList := alternative.([]any); isList {
			return false, fmt.Errorf("a list in a list: %v", alternative)
		}
		return slices.Contains(values, alternative), nil
	}
	if len(operator) != 1 {
		return false, fmt.Errorf("want one operator in an object, got %v", operator)
	}
	for name, operand := range operator {
		switch name {
		case "exists":
			want, ok := operand.(bool)
			if !ok {
				return false, fmt.Errorf("exists takes true or false, not %v", operand)
			}
			return want == (len(values) > 0), nil
		case "prefix":
			prefix, ok := operand.(string)
			if !ok {
				return false, fmt.Errorf("prefix takes a text here, not %v", operand)
			}
			return slices.ContainsFunc(values, func(v any) bool { return hasPrefix(v, prefix) }), nil
		case "numeric":
			bound, ok := operand.([]any)
			if !ok || len(bound) != 2 || bound[0] != ">=" {
				return false, fmt.Errorf("this matcher does not know numeric of %v", operand)
			}
			least, err := decimal(bound[1])
			if err != nil {
				return false, err
			}
			return slices.ContainsFunc(values, func(v any) bool {
				n, isNumber := v.(float64)
				return isNumber && n >= least
			}), nil
		case "anything-but":
			excluded, err := excludes(operand)
			if err != nil {
				return false, err
			}
			return slices.ContainsFunc(values, func(v any) bool { return !excluded(v) }), nil
		}
		return false, fmt.Errorf("this matcher does not know the operator %s", name)
	}
	return false, nil
}

// excludes returns the values that the operand of an anything-but excludes: texts, numbers, or a prefix.
func excludes(operand any) (func(any) bool, error) {
	if but, ok := operand.(map[string]any); ok {
		prefix, isText := but["prefix"].(string)
		if len(but) != 1 || !isText {
			return nil, fmt.Errorf("this matcher does not know anything-but of %v", operand)
		}
		return func(v any) bool { return hasPrefix(v, prefix) }, nil
	}
	list, isList := operand.([]any)
	if !isList {
		list = []any{operand}
	}
	texts, numbers := 0, 0
	for _, entry := range list {
		switch entry.(type) {
		case string:
			texts++
		case float64:
			numbers++
		}
	}
	if len(list) == 0 || (texts != len(list) && numbers != len(list)) {
		return nil, fmt.Errorf("anything-but takes texts or numbers, not %v", operand)
	}
	return func(v any) bool { return slices.Contains(list, v) }, nil
}

// decimal returns a number of a pattern; a text is none.
func decimal(v any) (float64, error) {
	n, isNumber := v.(float64)
	if !isNumber {
		return 0, fmt.Errorf("numeric takes a number, not %v of type %T", v, v)
	}
	return n, nil
}

func hasPrefix(v any, prefix string) bool {
	text, isText := v.(string)
	return isText && strings.HasPrefix(text, prefix)
}
