package instance_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

const (
	account = "123456789012"
	id      = "i-0123456789abcdef0"
)

// awsAnswers returns the bodies of a healthy AWS, by action.
func awsAnswers() map[string]string {
	return map[string]string{
		"GetCallerIdentity":  `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:sts::` + account + `:assumed-role/provision/x</Arn><UserId>x</UserId><Account>` + account + `</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`,
		"AssumeRole":         `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>a</AccessKeyId><SecretAccessKey>b</SecretAccessKey><SessionToken>c</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
		"DescribeInstances":  `<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><reservationSet><item><ownerId>%s</ownerId><instancesSet><item><instanceId>` + id + `</instanceId><instanceState><name>running</name></instanceState><launchTime>` + time.Now().UTC().Format(time.RFC3339) + `</launchTime><privateIpAddress>10.0.0.1</privateIpAddress><iamInstanceProfile><arn>arn:aws:iam::%s:instance-profile/worker</arn></iamInstanceProfile></item></instancesSet></item></reservationSet></DescribeInstancesResponse>`,
		"GetInstanceProfile": `<GetInstanceProfileResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetInstanceProfileResult><InstanceProfile><Roles><member><Arn>arn:aws:iam::` + account + `:role/worker</Arn></member></Roles></InstanceProfile></GetInstanceProfileResult></GetInstanceProfileResponse>`,
	}
}

// describe looks an instance up in a fake AWS that answers one action with an error.
func describe(t *testing.T, in, member, action, code string) instance.Sighting {
	t.Helper()
	return describeWith(t, instance.Options{MemberRole: member, Accounts: []string{"444455556666"}}, in, action, code)
}

func describeWith(t *testing.T, o instance.Options, in, action, code string) instance.Sighting {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		called := r.Form.Get("Action")
		w.Header().Set("Content-Type", "text/xml")
		if called == action {
			w.WriteHeader(http.StatusBadRequest)
			if called == "DescribeInstances" {
				fmt.Fprintf(w, `<Response><Errors><Error><Code>%s</Code><Message>no</Message></Error></Errors></Response>`, code)
			} else {
				fmt.Fprintf(w, `<ErrorResponse><Error><Code>%s</Code><Message>no</Message></Error></ErrorResponse>`, code)
			}
			return
		}
		fmt.Fprint(w, strings.ReplaceAll(awsAnswers()[called], "%s", in))
	}))
	t.Cleanup(server.Close)
	o.Config = aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
	}
	l := instance.New(o)
	ref := facts.Ref{ID: id, Place: facts.Place{Account: in, Region: "us-east-1"}}
	return l.Describe(t.Context(), []facts.Ref{ref})[ref]
}

// No error of AWS means that an instance is gone: throttling and outages end by themselves, and a person corrects a denial while
// the event waits. Only an account that is not configured is final.
func TestLookup_FaultIsNeverAnAbsence(t *testing.T) {
	const other = "444455556666"
	for action, codes := range map[string][]string{
		"DescribeInstances": {
			"RequestLimitExceeded", "InternalError", "Unavailable", "UnauthorizedOperation", "AuthFailure", "OptInRequired",
			"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "ExpiredToken", "SomethingNew",
		},
		"GetInstanceProfile": {"Throttling", "NoSuchEntity", "AccessDenied", "ServiceFailure", "SomethingNew"},
		"GetCallerIdentity":  {"Throttling", "InternalFailure", "ExpiredToken", "SomethingNew"},
		"AssumeRole":         {"Throttling", "AccessDenied", "RegionDisabledException", "ExpiredToken", "SomethingNew"},
	} {
		for _, code := range codes {
			t.Run(action+" "+code, func(t *testing.T) {
				in := account
				if action == "AssumeRole" {
					in = other
				}
				s := describe(t, in, "member", action, code)
				if s.Err == nil || fault.KindOf(s.Err) != fault.Retry || !strings.Contains(s.Err.Error(), code) {
					t.Errorf("want an error of kind retry that names %s, got %+v: else the instance would count as absent", code, s)
				}
			})
		}
	}
	t.Run("an account without a member role is refused", func(t *testing.T) {
		if s := describe(t, other, "", "", ""); s.Err == nil || fault.KindOf(s.Err) != fault.Refuse {
			t.Errorf("want kind refuse, since no retry can succeed, got %+v", s)
		}
	})
	t.Run("an account that is not allowed is refused before any call to it", func(t *testing.T) {
		s := describe(t, "999999999999", "member", "AssumeRole", "Throttling")
		if s.Err == nil || fault.KindOf(s.Err) != fault.Refuse || !strings.Contains(s.Err.Error(), "ALLOWED_ACCOUNTS") {
			t.Errorf("want a refusal that names the setting, got %+v: else any sender of events could claim names for its own instances", s)
		}
	})
	t.Run("any account is asked through its member role, and refused without one", func(t *testing.T) {
		const unlisted = "999999999999"
		if s := describeWith(t, instance.Options{MemberRole: "member", AnyAccount: true}, unlisted, "AssumeRole", "AccessDenied"); fault.KindOf(s.Err) != fault.Retry {
			t.Errorf("want the member role assumed, and its denial as a retry, got %+v", s)
		}
		if s := describeWith(t, instance.Options{MemberRole: "member", AnyAccount: true}, unlisted, "", ""); s.Err != nil || !s.Found {
			t.Errorf("want the instance of an account that trusts this deployment, got %+v", s)
		}
		if s := describeWith(t, instance.Options{AnyAccount: true}, unlisted, "", ""); fault.KindOf(s.Err) != fault.Refuse {
			t.Errorf("want kind refuse without a member role, got %+v", s)
		}
	})
	t.Run("the role alone is unknown", func(t *testing.T) {
		if s := describe(t, account, "", "GetInstanceProfile", "ServiceFailure"); !s.LacksRole() || !s.Found || s.Facts.State != facts.Running {
			t.Errorf("want the instance as EC2 describes it, got %+v: a removal does not depend on the role", s)
		}
		if s := describe(t, account, "", "DescribeInstances", "InternalError"); s.LacksRole() {
			t.Errorf("want nothing known of the instance, got %+v", s)
		}
	})
	t.Run("IAM is not asked where the role does not matter", func(t *testing.T) {
		o := instance.Options{NeedsRole: func(f facts.Instance) bool { return f.IAMInstanceProfileARN == "" || f.IAMRoleARN != "" }}
		if s := describeWith(t, o, account, "GetInstanceProfile", "ServiceFailure"); s.Err != nil || !s.Found || s.Facts.IAMRoleARN != "" {
			t.Errorf("want the instance without a role while IAM fails, got %+v: a private network has no way to IAM", s)
		}
	})
	t.Run("without an error it is found", func(t *testing.T) {
		if s := describe(t, account, "", "", ""); s.Err != nil || !s.Found || s.Facts.IAMRoleARN != "arn:aws:iam::"+account+":role/worker" {
			t.Errorf("want the instance with its role, got %+v", s)
		}
	})
}
