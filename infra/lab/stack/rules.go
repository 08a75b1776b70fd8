package stack

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// rules checks the parameters' values against a template's Rules, as CloudFormation does before it makes any resource. The
// error names every failed assertion.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/rules-section-structure.html
func (d *decider) rules(section map[string]any) error {
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(section)) {
		rule := object(section[name])
		if condition, ok := rule["RuleCondition"]; ok {
			applies, err := d.truth(condition)
			if err != nil {
				return fmt.Errorf("evaluating the condition of rule %s: %w", name, err)
			}
			if !applies {
				continue
			}
		}
		assertions, _ := rule["Assertions"].([]any)
		for _, a := range assertions {
			holds, err := d.truth(object(a)["Assert"])
			if err != nil {
				return fmt.Errorf("evaluating rule %s: %w", name, err)
			}
			if !holds {
				faults = append(faults, fmt.Errorf("rule %s: %v", name, object(a)["AssertDescription"]))
			}
		}
	}
	return errors.Join(faults...)
}

// members evaluates the functions that only a rule may use: Fn::Contains, whether a list contains a value, and
// Fn::EachMemberEquals, whether it contains only that value.
func (d *decider) members(function string, operands []any) (bool, error) {
	if len(operands) != 2 {
		return false, fmt.Errorf("%s takes a list and a value, not %d operands", function, len(operands))
	}
	all, ok := operands[0].([]any)
	if !ok {
		// A list parameter's value is a comma list.
		value, err := d.value(operands[0])
		if err != nil {
			return false, err
		}
		for entry := range strings.SplitSeq(fmt.Sprint(value), ",") {
			all = append(all, entry)
		}
	}
	wanted, err := d.value(operands[1])
	if err != nil {
		return false, err
	}
	is := func(entry any) bool { return fmt.Sprint(entry) == fmt.Sprint(wanted) }
	if function == "Fn::Contains" {
		return slices.ContainsFunc(all, is), nil
	}
	return !slices.ContainsFunc(all, func(entry any) bool { return !is(entry) }), nil
}
