package access

import (
	"encoding/json"
	"fmt"
	"testing"
)

const (
	home, away = "123456789012", "111122223333"
	queueARN   = "arn:aws:sqs:eu-central-1:123456789012:q"
	roleARN    = "arn:aws:iam::123456789012:role/r"
	awayARN    = "arn:aws:iam::111122223333:role/r"
)

// statements parses statements; an empty text is no policy.
func statements(t *testing.T, text string) []Statement {
	t.Helper()
	if text == "" {
		return nil
	}
	var document any
	if err := json.Unmarshal([]byte(`{"Version": "2012-10-17", "Statement": [`+text+`]}`), &document); err != nil {
		t.Fatal(err)
	}
	out, err := Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The table follows AWS's pages on a request within an account and on one between accounts.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics.html
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic-cross-account.html
func TestAllowed_CombinesBothSidesPolicies(t *testing.T) {
	const (
		may       = `{"Effect": "Allow", "Action": "*", "Resource": "*"}`
		mayNot    = `{"Effect": "Deny", "Action": "*", "Resource": "*"}`
		onQueue   = `{"Effect": "%s", "Principal": %s, "Action": "*", "Resource": "*"}`
		trust     = `{"Effect": "Allow", "Principal": %s, "Action": "sts:AssumeRole"}`
		theRole   = `{"AWS": "` + roleARN + `"}`
		itsOwn    = `{"AWS": "` + home + `"}`
		itsRoot   = `{"AWS": "arn:aws:iam::` + home + `:root"}`
		awayRole  = `{"AWS": "` + awayARN + `"}`
		awayRoot  = `{"AWS": "` + away + `"}`
		theEvents = `{"Service": "events.amazonaws.com"}`
	)
	allow := func(principal string) string { return fmt.Sprintf(onQueue, "Allow", principal) }
	deny := func(principal string) string { return fmt.Sprintf(onQueue, "Deny", principal) }
	trusts := func(principal string) string { return fmt.Sprintf(trust, principal) }
	role, stranger, events := Caller{Role: roleARN}, Caller{Role: awayARN}, Caller{Service: "events.amazonaws.com"}
	send, assume, decrypt := [2]string{"sqs:SendMessage", queueARN}, [2]string{"sts:AssumeRole", "arn:aws:iam::123456789012:role/other"}, [2]string{"kms:Decrypt", "arn:aws:kms:eu-central-1:123456789012:key/k"}
	for name, row := range map[string]struct {
		by       Caller
		call     [2]string
		own, its string
		want     bool
	}{
		"neither":                                      {role, send, "", "", false},
		"its own policy":                               {role, send, may, "", true},
		"the queue's policy":                           {role, send, "", allow(theRole), true},
		"the queue's policy for all":                   {role, send, "", allow(`"*"`), true},
		"the queue's policy for the account":           {role, send, "", allow(itsRoot), false},
		"that and its own policy":                      {role, send, may, allow(itsOwn), true},
		"its own denial":                               {role, send, may + "," + mayNot, allow(theRole), false},
		"the queue's denial":                           {role, send, may, deny(`"*"`), false},
		"the queue's denial of others":                 {role, send, may, deny(awayRole), true},
		"another account: its own policy":              {stranger, send, may, "", false},
		"another account: the queue's policy":          {stranger, send, "", allow(awayRole), false},
		"another account: both":                        {stranger, send, may, allow(awayRole), true},
		"another account: both, by account":            {stranger, send, may, allow(awayRoot), true},
		"another account: for this account":            {stranger, send, may, allow(itsOwn), false},
		"a service without a policy":                   {events, send, "", "", false},
		"a service that is named":                      {events, send, "", allow(theEvents), true},
		"another service is named":                     {Caller{Service: "sns.amazonaws.com"}, send, "", allow(theEvents), false},
		"a service, and the account is named":          {events, send, "", allow(itsOwn), false},
		"a role that trusts no one":                    {role, assume, may, "", false},
		"a role that trusts the caller":                {role, assume, "", trusts(theRole), true},
		"a role that trusts the account":               {role, assume, "", trusts(itsRoot), false},
		"a role that trusts the account, and a policy": {role, assume, may, trusts(itsRoot), true},
		"a role that trusts a stranger":                {stranger, assume, "", trusts(awayRole), false},
		"a role that trusts a stranger, and a policy":  {stranger, assume, may, trusts(awayRole), true},
		"a key without a policy for the account":       {role, decrypt, may, "", false},
		"a key with its default policy":                {role, decrypt, may, allow(itsRoot), true},
	} {
		q := Request{Caller: row.by, Action: row.call[0], Resource: row.call[1], Account: home}
		got, err := Allowed(q, Policies{statements(t, row.own), statements(t, row.its)})
		if err != nil || got != row.want {
			t.Errorf("%s: allowed is %v (%v), want %v", name, got, err, row.want)
		}
	}
}

func TestAllowed_EvaluatesConditionsAsAWS(t *testing.T) {
	for name, row := range map[string]struct {
		condition string
		values    []string
		want      bool
	}{
		"StringEquals, equal":                    {`"StringEquals": {"k": ["a", "b"]}`, []string{"b"}, true},
		"StringEquals, other case":               {`"StringEquals": {"k": "a"}`, []string{"A"}, false},
		"StringEquals, no value":                 {`"StringEquals": {"k": "a"}`, nil, false},
		"StringEquals, a wildcard is text":       {`"StringEquals": {"k": "a*"}`, []string{"ab"}, false},
		"StringLike":                             {`"StringLike": {"k": "a#*"}`, []string{"a#b#c"}, true},
		"StringLike, the beginning alone":        {`"StringLike": {"k": "a#*"}`, []string{"a"}, false},
		"StringLike, ? is one":                   {`"StringLike": {"k": "a?c"}`, []string{"abbc"}, false},
		"Bool":                                   {`"Bool": {"k": "false"}`, []string{"False"}, true},
		"Bool, no value":                         {`"Bool": {"k": "false"}`, nil, false},
		"ArnEquals":                              {`"ArnEquals": {"k": "arn:aws:sqs:eu-central-1:1:q"}`, []string{"arn:aws:sqs:eu-central-1:1:q"}, true},
		"ArnLike, a wildcard within a part":      {`"ArnLike": {"k": "arn:aws:lambda:*:1:function:*"}`, []string{"arn:aws:lambda:x:1:function:f"}, true},
		"ArnLike, a wildcard ends with its part": {`"ArnLike": {"k": "arn:aws:lambda:*:function:*"}`, []string{"arn:aws:lambda:x:1:function:f"}, false},
		"ArnNotEquals, another":                  {`"ArnNotEquals": {"k": "arn:aws:iam::1:role/a"}`, []string{"arn:aws:iam::1:role/b"}, true},
		"ArnNotEquals, the same":                 {`"ArnNotEquals": {"k": "arn:aws:iam::1:role/a"}`, []string{"arn:aws:iam::1:role/a"}, false},
		"ArnNotEquals, no value":                 {`"ArnNotEquals": {"k": "arn:aws:iam::1:role/a"}`, nil, true},
		"Null of false, a value":                 {`"Null": {"k": "false"}`, []string{"a"}, true},
		"Null of false, no value":                {`"Null": {"k": "false"}`, nil, false},
		"Null of true, no value":                 {`"Null": {"k": "true"}`, nil, true},
		"ForAllValues, all":                      {`"ForAllValues:StringEquals": {"k": ["a", "b"]}`, []string{"b", "a", "a"}, true},
		"ForAllValues, all but one":              {`"ForAllValues:StringEquals": {"k": ["a", "b"]}`, []string{"a", "c"}, false},
		"ForAllValues, no value":                 {`"ForAllValues:StringLike": {"k": "a"}`, nil, true},
		"two conditions, one false":              {`"StringEquals": {"k": "a"}, "Null": {"other": "false"}`, []string{"a"}, false},
		"a key in another case":                  {`"StringEquals": {"K": "a"}`, []string{"a"}, true},
	} {
		own := statements(t, `{"Effect": "Allow", "Action": "sqs:Send*", "Resource": "*", "Condition": {`+row.condition+`}}`)
		q := Request{Caller: Caller{Role: roleARN}, Action: "sqs:SendMessage", Resource: queueARN, Account: home, Context: map[string][]string{"k": row.values}}
		if got, err := Allowed(q, Policies{Identity: own}); err != nil || got != row.want {
			t.Errorf("%s: allowed is %v (%v), want %v", name, got, err, row.want)
		}
	}
}

func TestAllowed_RefusesWhatItDoesNotKnow(t *testing.T) {
	for _, condition := range []string{
		`"StringEqualsIfExists": {"k": "a"}`, `"ForAnyValue:StringEquals": {"k": "a"}`, `"DateLessThan": {"k": "a"}`, `"StringEquals": {"k": "a"}`,
	} {
		own := statements(t, `{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {`+condition+`}}`)
		q := Request{Caller: Caller{Role: roleARN}, Action: "sqs:SendMessage", Resource: queueARN, Account: home, Context: map[string][]string{"k": {"a", "b"}}}
		if got, err := Allowed(q, Policies{Identity: own}); err == nil {
			t.Errorf("%s with two values: want an error, got %v", condition, got)
		}
	}
}
