package autoscaling_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// service is a fake Auto Scaling that records the forms it was sent.
type service struct {
	forms  []url.Values
	status int
	body   string
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	s.forms = append(s.forms, form)
	if s.status != 0 {
		w.WriteHeader(s.status)
	}
	text := s.body
	if text == "" {
		text = fmt.Sprintf(`<%[1]sResponse><%[1]sResult/></%[1]sResponse>`, form.Get("Action"))
	}
	_, _ = io.WriteString(w, text)
}

func groups(t *testing.T, s *service) *autoscaling.Groups {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return autoscaling.New(func(_ context.Context, p facts.Place) (aws.Config, error) {
		if p.Account != "123456789012" {
			return aws.Config{}, errors.New("no such account")
		}
		return aws.Config{
			Region: p.Region, BaseEndpoint: aws.String(server.URL), Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""),
			Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		}, nil
	})
}

func ref(n int) facts.Ref {
	return facts.Ref{ID: fmt.Sprintf("i-%08x", n), Place: facts.Place{Account: "123456789012", Region: "us-east-1"}}
}

func problem(code, message string) string {
	return `<ErrorResponse><Error><Type>Sender</Type><Code>` + code + `</Code><Message>` + message + `</Message></Error></ErrorResponse>`
}

func TestHook_AlreadyEndedIsNoFault(t *testing.T) {
	for name, row := range map[string]struct {
		status int
		body   string
		kind   string
	}{
		"ended":                     {200, "", ""},
		"over before":               {400, problem("ValidationError", "No active Lifecycle Action found with instance ID i-1"), ""},
		"the group is gone":         {400, problem("ValidationError", "AutoScalingGroup name not found - workers"), ""},
		"a malformed name":          {400, problem("ValidationError", "1 validation error detected: Value at 'lifecycleHookName'"), "refuse"},
		"not allowed":               {403, problem("AccessDenied", "User is not authorized"), "retry"},
		"throttled":                 {400, problem("Throttling", "Rate exceeded"), "retry"},
		"another group is changing": {400, problem("ResourceContention", "You already have a pending update"), "retry"},
		"down":                      {503, "", "retry"},
	} {
		for action, do := range map[string]func(*autoscaling.Groups, event.Hook) error{
			"CompleteLifecycleAction": func(g *autoscaling.Groups, h event.Hook) error {
				return g.Complete(t.Context(), ref(1), h, autoscaling.Abandon)
			},
			"RecordLifecycleActionHeartbeat": func(g *autoscaling.Groups, h event.Hook) error {
				return g.Prolong(t.Context(), ref(1), h)
			},
		} {
			s := &service{status: row.status, body: row.body}
			err := do(groups(t, s), event.Hook{Group: "workers", Name: "vault-identity-ready", Token: "a-token"})
			kind := ""
			if err != nil {
				kind = fault.KindOf(err).String()
			}
			if kind != row.kind {
				t.Errorf("%s, %s: got %v, want kind %q", action, name, err, row.kind)
			}
			if err != nil && (!strings.Contains(err.Error(), "vault-identity-ready") || !strings.Contains(err.Error(), ref(1).ID)) {
				t.Errorf("%s, %s: the error names neither hook nor instance: %v", action, name, err)
			}
			f := s.forms[0]
			if f.Get("Action") != action || f.Get("AutoScalingGroupName") != "workers" || f.Get("LifecycleActionToken") != "a-token" || f.Get("InstanceId") != ref(1).ID {
				t.Errorf("%s: sent %v", action, f)
			}
		}
	}
}

func TestHook_WithoutTokenNamesItsInstance(t *testing.T) {
	s := &service{}
	if err := groups(t, s).Complete(t.Context(), ref(1), event.Hook{Group: "workers", Name: "vault-identity-ready"}, autoscaling.Continue); err != nil {
		t.Fatal(err)
	}
	if f := s.forms[0]; f.Has("LifecycleActionToken") || f.Get("InstanceId") != ref(1).ID || f.Get("LifecycleActionResult") != "CONTINUE" {
		t.Errorf("sent %v: Auto Scaling refuses an empty token", f)
	}
}

func TestGroups_AskFiftyAtOnceKeepFaultsApart(t *testing.T) {
	s := &service{body: `<DescribeAutoScalingInstancesResponse><DescribeAutoScalingInstancesResult><AutoScalingInstances><member><InstanceId>` + ref(7).ID +
		`</InstanceId><LifecycleState>Terminating:Wait</LifecycleState></member></AutoScalingInstances></DescribeAutoScalingInstancesResult></DescribeAutoScalingInstancesResponse>`}
	var refs []facts.Ref
	for n := range 120 {
		refs = append(refs, ref(n))
	}
	outside := facts.Ref{ID: "i-0fffffff", Place: facts.Place{Account: "999999999999", Region: "us-east-1"}}
	got := groups(t, s).States(t.Context(), append(refs, outside))
	if len(s.forms) != 3 || len(got) != 121 {
		t.Errorf("want three calls for 120 instances, got %d and %d answers", len(s.forms), len(got))
	}
	if s := got[ref(7)]; s.Err != nil || !s.Terminating() {
		t.Errorf("got %+v", s)
	}
	if s := got[ref(8)]; s.Err != nil || s.State != "" || s.Terminating() {
		t.Errorf("without a group: got %+v", s)
	}
	if got[outside].Err == nil {
		t.Error("want the error of the other account for its instance only")
	}
	for state, is := range map[string]bool{"Terminating": true, "Terminating:Proceed": true, "Terminating:Retained": true, "InService": false, "Warmed:Terminating:Wait": true, "Warmed:Pending:Wait": false, "Warmed:Stopped": false, "": false} {
		if (autoscaling.GroupState{State: state}).Terminating() != is {
			t.Errorf("%q: terminating is %v, want %v", state, !is, is)
		}
	}
}
