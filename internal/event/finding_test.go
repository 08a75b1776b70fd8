package event_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

func service(e map[string]any) map[string]any { return detail(e)["service"].(map[string]any) }

func TestFinding_IsReadFromItsEvent(t *testing.T) {
	r := parsed(t, sample(t, "finding"))
	want := event.Finding{
		ID: "16afba5c5c43e07c9e3e5e2e544e95df", Type: "CryptoCurrency:EC2/BitcoinTool.B!DNS", Severity: 8, Sender: "123456789012",
		LastSeen: time.Date(2026, 1, 2, 2, 58, 31, 0, time.UTC),
	}
	if r.Err != nil || r.Event.ID != "i-0123456789abcdef0" || r.Event.State != facts.Pending || r.Event.Finding == nil || *r.Event.Finding != want {
		t.Fatalf("got %+v, %+v", r, r.Event.Finding)
	}
	e := sample(t, "finding") // as GuardDuty's administrator sends it
	detail(e)["accountId"], service(e)["archived"] = "210987654321", true
	delete(service(e), "eventLastSeen")
	r = parsed(t, e)
	want.Archived, want.LastSeen = true, time.Time{}
	if r.Err != nil || r.Event.Account != "210987654321" || r.Event.Region != "us-east-1" || *r.Event.Finding != want {
		t.Errorf("got %+v, %+v", r, r.Event.Finding)
	}
}

func TestFinding_ShowsThatItIsASample(t *testing.T) {
	for name, row := range map[string]struct {
		info any
		want bool
	}{
		"none":               {nil, false},
		"true":               {map[string]any{"sample": true}, true},
		"true as text":       {map[string]any{"sample": "true"}, true},
		"false":              {map[string]any{"sample": false}, false},
		"in the value":       {map[string]any{"value": `{"threatName":"x","sample":true}`, "type": "default"}, true},
		"false in the value": {map[string]any{"value": `{"sample":false}`, "type": "default"}, false},
		"a value of no form": {map[string]any{"value": "sample"}, false},
		"beside odd values":  {map[string]any{"value": []int{1}, "sample": true}, true},
		"a text":             {"sample", false},
	} {
		e := sample(t, "finding")
		service(e)["additionalInfo"] = row.info
		if r := parsed(t, e); r.Err != nil || r.Event.Finding.Sample != row.want {
			t.Errorf("%s: want sample %v, got %+v, %v", name, row.want, r.Event.Finding, r.Err)
		}
	}
}

func TestFinding_NamesTheFaultOfABadEvent(t *testing.T) {
	for name, row := range map[string]struct {
		spoil   func(map[string]any)
		says    string
		ignored bool
	}{
		"another resource": {func(e map[string]any) {
			detail(e)["resource"] = map[string]any{"resourceType": "AccessKey"}
		}, "AccessKey", true},
		"no resource":             {func(e map[string]any) { delete(detail(e), "resource") }, `type ""`, true},
		"no instance":             {func(e map[string]any) { detail(e)["resource"] = map[string]any{"resourceType": "Instance"} }, "not the ID of an EC2 instance", false},
		"no account":              {func(e map[string]any) { delete(detail(e), "accountId") }, "not an account ID", false},
		"another region":          {func(e map[string]any) { detail(e)["region"] = "eu-west-1" }, "eu-west-1", false},
		"no region":               {func(e map[string]any) { delete(detail(e), "region") }, `region ""`, false},
		"a line in the type":      {func(e map[string]any) { detail(e)["type"] = "a\nb" }, "not the type of a finding", false},
		"a type that is too long": {func(e map[string]any) { detail(e)["type"] = strings.Repeat("a", 129) }, "not the type of a finding", false},
		"no type":                 {func(e map[string]any) { delete(detail(e), "type") }, "not the type of a finding", false},
		"an escape in the ID":     {func(e map[string]any) { detail(e)["id"] = "\x1b[2J" }, "not the ID of a finding", false},
		"no ID":                   {func(e map[string]any) { delete(detail(e), "id") }, "not the ID of a finding", false},
		"a severity as text":      {func(e map[string]any) { detail(e)["severity"] = "8" }, "Severity", false},
		"a time of no form":       {func(e map[string]any) { service(e)["eventLastSeen"] = "yesterday" }, "detail", false},
		"no detail":               {func(e map[string]any) { delete(e, "detail") }, "detail", false},
		"another source":          {func(e map[string]any) { e["source"] = "my.application" }, "my.application", true},
	} {
		e := sample(t, "finding")
		row.spoil(e)
		r := parsed(t, e)
		if r.Err == nil || fault.KindOf(r.Err) != fault.Refuse || errors.Is(r.Err, event.ErrIgnored) != row.ignored || !strings.Contains(r.Err.Error(), row.says) {
			t.Errorf("%s: want a refusal with %q, ignored %v, got %v", name, row.says, row.ignored, r.Err)
		}
		if r.Event.Finding != nil {
			t.Errorf("%s: the event has a finding", name)
		}
	}
}
