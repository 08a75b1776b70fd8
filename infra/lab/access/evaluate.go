package access

import (
	"fmt"
	"slices"
	"strings"
)

// Request is a call as AWS authorizes it.
type Request struct {
	Caller   Caller
	Action   string
	Resource string              // an ARN, or "*" for an action without resources
	Account  string              // of the resource
	Context  map[string][]string // condition keys, besides those of the caller; no value means that the request lacks the key
}

// Caller is a role, by its ARN, or a service of AWS, by its name.
type Caller struct{ Role, Service string }

// account returns the account of the caller's role.
func (c Caller) account() string {
	if parts := strings.SplitN(c.Role, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

// Policies are the statements that apply to a request: those of the caller's role and those of the resource. For sts:AssumeRole
// the latter are the assumed role's trust policy.
type Policies struct{ Identity, Resource []Statement }

// level is how a resource's policy names a caller.
type level int

const (
	unnamed level = iota
	byAccount
	named
)

// Allowed reports whether AWS allows the request, without permissions boundaries and policies of organizations and sessions.
// An error is a policy or request that AWS documents no result for, or that uses what this package does not know.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
func Allowed(q Request, p Policies) (bool, error) {
	granted, denied, err := identity(q, p.Identity)
	if err != nil {
		return false, err
	}
	trusted, refused, err := resource(q, p.Resource)
	if err != nil {
		return false, err
	}
	switch {
	case denied || refused:
		return false, nil
	case q.Caller.Service != "":
		return trusted == named, nil
	// A role and a key are used by no caller that their own policy does not name.
	// https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html
	case q.Action == "sts:AssumeRole" || strings.HasPrefix(q.Action, "kms:"):
		sameAccount := q.Caller.account() == q.Account
		return (trusted == named && (granted || sameAccount)) || (trusted == byAccount && granted), nil
	case q.Caller.account() == q.Account:
		return granted || trusted == named, nil
	default: // from another account, both sides have to allow it
		return granted && trusted != unnamed, nil
	}
}

func identity(q Request, statements []Statement) (granted, denied bool, err error) {
	for _, s := range statements {
		applies, err := s.applies(q, false)
		if err != nil {
			return false, false, err
		}
		if applies {
			granted, denied = granted || s.Effect == "Allow", denied || s.Effect == "Deny"
		}
	}
	return granted, denied, nil
}

func resource(q Request, statements []Statement) (trusted level, refused bool, err error) {
	for _, s := range statements {
		how := s.names(q.Caller)
		if how == unnamed {
			continue
		}
		applies, err := s.applies(q, len(s.Resources) == 0)
		if err != nil {
			return unnamed, false, err
		}
		switch {
		case applies && s.Effect == "Deny":
			refused = true
		case applies:
			trusted = max(trusted, how)
		}
	}
	return trusted, refused, nil
}

// names reports how a statement's principals include the caller.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html
func (s Statement) names(c Caller) level {
	found := unnamed
	for _, p := range s.Principals {
		switch {
		case p == Principal{"AWS", "*"}, p.Kind == "Service" && c.Service != "" && p.Value == c.Service, p.Kind == "AWS" && c.Role != "" && p.Value == c.Role:
			found = max(found, named)
		case p.Kind == "AWS" && c.Role != "" && (p.Value == c.account() || (strings.HasPrefix(p.Value, "arn:") && strings.HasSuffix(p.Value, "::"+c.account()+":root"))):
			found = max(found, byAccount)
		}
	}
	return found
}

// applies reports whether a statement's actions, resources and conditions include the request. trust is set for a trust policy,
// whose resource is the role itself.
func (s Statement) applies(q Request, trust bool) (bool, error) {
	isAction := slices.ContainsFunc(s.Actions, func(pattern string) bool { return glob(strings.ToLower(pattern), strings.ToLower(q.Action)) })
	isResource := trust || slices.ContainsFunc(s.Resources, func(pattern string) bool { return glob(pattern, q.Resource) })
	if !isAction || !isResource {
		return false, nil
	}
	for _, c := range s.Conditions {
		holds, err := c.holds(q.values(c.Key))
		if err != nil {
			return false, fmt.Errorf("%s on %s: %w", q.Action, q.Resource, err)
		}
		if !holds {
			return false, nil
		}
	}
	return true, nil
}

// values returns the values of a condition key in the request.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
func (q Request) values(key string) []string {
	for name, values := range q.Context {
		if strings.EqualFold(name, key) {
			return values
		}
	}
	switch strings.ToLower(key) {
	case "aws:principalarn": // for a session, the ARN of its role
		if q.Caller.Role != "" {
			return []string{q.Caller.Role}
		}
	case "aws:securetransport":
		return []string{"true"}
	}
	return nil
}

// holds evaluates a condition for the values that a request has of its key.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
func (c Condition) holds(values []string) (bool, error) {
	if c.Operator == (Operator{Base: "Null"}) {
		return slices.Contains(c.Values, fmt.Sprint(len(values) == 0)), nil
	}
	compare, negated, err := comparison(c.Operator.Base)
	if err != nil {
		return false, err
	}
	matches := func(value string) bool {
		return slices.ContainsFunc(c.Values, func(pattern string) bool { return compare(pattern, value) }) != negated
	}
	switch {
	case c.Operator.Set == "ForAllValues": // true for no value
		return !slices.ContainsFunc(values, func(v string) bool { return !matches(v) }), nil
	case c.Operator.Set != "":
		return false, fmt.Errorf("the lab does not know the set operator %s", c.Operator.Set)
	case len(values) == 0:
		return negated, nil
	case len(values) > 1:
		return false, fmt.Errorf("%s has the values %q and is under %s: AWS documents no result for a plain operator", c.Key, values, c.Operator)
	}
	return matches(values[0]), nil
}

// comparison returns the comparison of a pattern with a value under an operator.
func comparison(operator string) (compare func(pattern, value string) bool, negated bool, err error) {
	switch operator {
	case "StringEquals":
		return func(a, b string) bool { return a == b }, false, nil
	case "Bool":
		return strings.EqualFold, false, nil
	case "StringLike":
		return glob, false, nil
	case "ArnEquals", "ArnLike": // alike, says AWS
		return arnMatches, false, nil
	case "ArnNotEquals":
		return arnMatches, true, nil
	}
	return nil, false, fmt.Errorf("the lab does not know the operator %s; add it in infra/lab/access/evaluate.go", operator)
}

// arnMatches reports whether an ARN matches a pattern under ArnLike, which compares each of the six parts for itself.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html#Conditions_ARN
func arnMatches(pattern, arn string) bool {
	patterns, parts := strings.SplitN(pattern, ":", 6), strings.SplitN(arn, ":", 6)
	if len(patterns) != 6 || len(parts) != 6 {
		return false
	}
	for i := range parts {
		if !glob(patterns[i], parts[i]) {
			return false
		}
	}
	return true
}
