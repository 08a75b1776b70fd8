package access

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kind is the kind of a policy.
type Kind string

// The kinds of policies differ in the elements that their statements have.
const (
	Identity Kind = "identity policy" // a role's own; it has resources and no principal
	Resource Kind = "resource policy" // a queue's, a bus's, a key's or a function's; it has both
	Trust    Kind = "trust policy"    // a role's; it has principals, and the role itself is the resource
)

// Faults returns what AWS's reference has against a statement, one text for each fault.
func (r *Reference) Faults(s Statement, kind Kind) []string {
	c := checker{reference: r, statement: s}
	c.elements(kind)
	fitting := map[string]bool{}
	for _, pattern := range s.Actions {
		c.action(pattern, kind, fitting)
	}
	if kind == Trust {
		return c.faults
	}
	for _, resource := range s.Resources {
		if !fitting[resource] {
			c.fault("the resource %s fits none of the actions %q", resource, s.Actions)
		}
	}
	return c.faults
}

type checker struct {
	reference *Reference
	statement Statement
	faults    []string
}

func (c *checker) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

func (c *checker) elements(kind Kind) {
	s := c.statement
	if len(s.Actions) == 0 || (len(s.Resources) > 0) != (kind != Trust) || (len(s.Principals) > 0) != (kind != Identity) {
		c.fault("a statement of the kind %q has other elements: actions %q, resources %q, principals %q", kind, s.Actions, s.Resources, s.Principals)
	}
	for _, condition := range s.Conditions {
		c.values(condition)
		c.setIsRequired(condition)
	}
}

// action checks one action of the statement, and adds the resources that fit it.
func (c *checker) action(pattern string, kind Kind, fitting map[string]bool) {
	actions := c.reference.Expand(pattern)
	if len(actions) == 0 {
		c.fault("AWS has no action %s", pattern)
		return
	}
	named := !strings.ContainsAny(pattern, "*?")
	some := false
	unknown := map[string]bool{}
	for _, a := range actions {
		if !named && c.statement.Effect == "Allow" && strings.Contains(a.AccessLevel, "Permissions management") {
			c.fault("%s allows %s too, which changes permissions", pattern, a)
		}
		resources := c.fitting(a, kind)
		some = some || len(resources) > 0
		for _, resource := range resources {
			fitting[resource] = true
			for _, condition := range c.statement.Conditions {
				c.condition(a, resource, condition, unknown)
			}
		}
	}
	if !some {
		c.fault("%s fits none of the resources %q%s", pattern, c.statement.Resources, c.forms(actions, named))
	}
	for _, key := range slices.Sorted(maps.Keys(unknown)) {
		c.fault("a request of %s never has the key %s", pattern, key)
	}
}

// fitting returns the statement's resources that an action can have. An action without resource types has only "*".
func (c *checker) fitting(a Action, kind Kind) []string {
	if kind == Trust {
		return []string{"*"}
	}
	var out []string
	for _, resource := range c.statement.Resources {
		if (len(a.ResourceTypes) == 0 && resource == "*") || len(c.reference.fits(a, resource)) > 0 {
			out = append(out, resource)
		}
	}
	return out
}

// forms names the ARNs that a single action can have, as the next step for its author.
func (c *checker) forms(actions []Action, named bool) string {
	if !named {
		return ""
	}
	var out []string
	for _, t := range actions[0].ResourceTypes {
		out = append(out, c.reference.services[actions[0].Service].resourceTypes[strings.ToLower(t.Name)].ARN)
	}
	if len(out) == 0 {
		return ": it knows only *"
	}
	return fmt.Sprintf(": it knows %q", out)
}

// families are the operators for each type of key. Null fits each key.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
var families = map[string][]string{
	"String":    {"StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike", "StringNotLike"},
	"ARN":       {"ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"},
	"Bool":      {"Bool"},
	"Numeric":   {"NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals"},
	"Date":      {"DateEquals", "DateNotEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals"},
	"IPAddress": {"IpAddress", "NotIpAddress"},
}

// condition checks a condition's key and operator for requests of an action on a resource, and adds the unknown keys.
func (c *checker) condition(a Action, resource string, condition Condition, unknown map[string]bool) {
	kind, known := c.reference.KeyType(a, resource, condition.Key)
	if !known {
		unknown[condition.Key] = true
		return
	}
	operator := condition.Operator
	if operator.Base == "Null" && operator.Set == "" {
		return
	}
	single, several := strings.CutPrefix(kind, "ArrayOf")
	fault := ""
	switch {
	case several && operator.Set != "ForAllValues" && operator.Set != "ForAnyValue":
		fault = "want ForAllValues or ForAnyValue: with a plain operator AWS refuses a request with two values"
	case !several && operator.Set != "":
		fault = "want an operator without a set"
	case !slices.Contains(families[single], strings.TrimSuffix(operator.Base, "IfExists")) && !c.isARNInText(single, condition):
		fault = fmt.Sprintf("want one of %q", families[single])
	default:
		return
	}
	text := fmt.Sprintf("%s has the type %s and is under %s, %s", condition.Key, kind, operator, fault)
	if !slices.Contains(c.faults, text) {
		c.faults = append(c.faults, text)
	}
}

// isARNInText reports whether the condition compares a text key with ARNs, as AWS does for the context of encrypted logs.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
func (c *checker) isARNInText(kind string, condition Condition) bool {
	return kind == "String" && slices.Contains(families["ARN"], condition.Operator.Base) &&
		!slices.ContainsFunc(condition.Values, func(v string) bool { return !strings.HasPrefix(v, "arn:") })
}

// values checks that the values can match at all.
func (c *checker) values(condition Condition) {
	base := strings.TrimSuffix(condition.Operator.Base, "IfExists")
	for _, v := range condition.Values {
		switch {
		case (base == "Bool" || base == "Null") && v != "true" && v != "false":
			c.fault("%s of %s is %q, want true or false", base, condition.Key, v)
		case slices.Contains(families["ARN"], base) && len(strings.SplitN(v, ":", 6)) != 6:
			c.fault("%s of %s is %q, which is no ARN of six parts and matches none", base, condition.Key, v)
		case (base == "StringEquals" || base == "StringNotEquals") && strings.ContainsAny(v, "*?"):
			c.fault("%s compares %q of %s as plain text, want StringLike for a wildcard", base, v, condition.Key)
		}
	}
}

// setIsRequired checks that an Allow by ForAllValues requires its key, since the operator is true for a request without one.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html
func (c *checker) setIsRequired(condition Condition) {
	if condition.Operator.Set != "ForAllValues" || c.statement.Effect != "Allow" {
		return
	}
	required := slices.ContainsFunc(c.statement.Conditions, func(other Condition) bool {
		return other.Operator == (Operator{Base: "Null"}) && strings.EqualFold(other.Key, condition.Key) && slices.Equal(other.Values, []string{"false"})
	})
	if !required {
		c.fault("%s is under %s, which allows a request without the key, want a Null of false too", condition.Key, condition.Operator)
	}
}
