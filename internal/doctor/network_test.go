package doctor_test

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestDoctor_NamesTheMissingEndpoint(t *testing.T) {
	w := healthy(t)
	reach := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	w.options.Services = []doctor.Service{
		{Name: "sqs", Region: "us-east-1", Use: "messages to their own queues", Reach: reach(noRoute("sqs.us-east-1"))},
		{Name: "events", Region: "us-east-1", Use: "audit events", Reach: reach(nil)},
	}
	checks := map[string]doctor.Check{}
	report := w.examine(t)
	for _, c := range report.Checks {
		checks[c.Name] = c
	}
	if c := checks["reach sqs us-east-1"]; report.OK || c.OK || !strings.Contains(c.Remedy, "interface endpoint com.amazonaws.us-east-1.sqs") || !strings.Contains(c.Detail, "own queues") {
		t.Errorf("want the missing endpoint and its use, got %+v", c)
	}
	if c := checks["reach events us-east-1"]; !c.OK {
		t.Errorf("want a service that answers to be OK, got %+v", c)
	}
}

// TestDoctor_NamesTheChinesePrefix holds that some endpoints of China's regions have another prefix than the rest.
func TestDoctor_NamesTheChinesePrefix(t *testing.T) {
	w := healthy(t)
	w.options.Region = "cn-north-1"
	w.options.Services = []doctor.Service{{Name: "sqs", Region: "cn-north-1", Reach: func(context.Context) error { return noRoute("sqs.cn-north-1") }}}
	for _, c := range w.examine(t).Checks {
		if c.Name == "reach sqs cn-north-1" && !strings.Contains(c.Remedy, "com.amazonaws.cn-north-1.sqs (for some services cn.com.amazonaws…)") {
			t.Errorf("want both forms of the endpoint's name, got %+v", c)
		}
	}
}

// TestDoctor_PassesWithoutAutoScaling has a network without an endpoint of Auto Scaling, which only lifecycle hooks need.
func TestDoctor_PassesWithoutAutoScaling(t *testing.T) {
	w := healthy(t)
	w.options.Services = []doctor.Service{{
		Name: "autoscaling", Region: "us-east-1", Use: "lifecycle hooks", Optional: true, Reach: func(context.Context) error { return noRoute("autoscaling.us-east-1") },
	}}
	report := w.examine(t)
	for _, c := range report.Checks {
		isNote := strings.Contains(c.Detail, "only lifecycle hooks need it") && strings.Contains(c.Detail, "com.amazonaws.us-east-1.autoscaling")
		if c.Name == "reach autoscaling us-east-1" && (!c.OK || !isNote || c.Remedy != "") {
			t.Errorf("want the check OK with a note that names the use and the endpoint, got %+v", c)
		}
	}
	if !report.OK {
		t.Errorf("want the report OK: no setting says that hooks are used, got %+v", report.Checks)
	}
}

// TestDoctor_AsksIAMOnlyForProfilesThatNeedIt has a network without a way to IAM.
func TestDoctor_AsksIAMOnlyForProfilesThatNeedIt(t *testing.T) {
	for match, wantOK := range map[string]bool{
		`iam_instance_profile_arn: "arn:aws:iam::*:instance-profile/worker"`: true,
		`iam_role_arn: "arn:aws:iam::*:role/worker"`:                         false,
	} {
		w := healthy(t)
		w.profileErrs[own] = noRoute("iam")
		w.options.Profiles = loadMatching(t, match)
		for _, c := range w.examine(t).Checks {
			if c.Name == "iam own account" && (c.OK != wantOK || (!wantOK && !strings.Contains(c.Remedy, "alice-p0"))) {
				t.Errorf("%s: want OK: %v, and otherwise a remedy that names the profile, got %+v", match, wantOK, c)
			}
		}
	}
}

// TestDoctor_NamesTheEndpointOfIAM has the function in regions with and without IAM's control plane.
func TestDoctor_NamesTheEndpointOfIAM(t *testing.T) {
	for region, want := range map[string]string{
		"us-east-1":      "com.amazonaws.iam to their VPC",
		"eu-central-1":   "com.amazonaws.iam with the service region us-east-1 to their VPC",
		"cn-northwest-1": "com.amazonaws.iam with the service region cn-north-1 to their VPC",
		"us-gov-east-1":  "com.amazonaws.iam with the service region us-gov-west-1 to their VPC",
		"us-gov-west-1":  "com.amazonaws.iam to their VPC",
	} {
		w := healthy(t)
		w.options.Region = region
		w.profileErrs[own] = noRoute("iam")
		for _, c := range w.examine(t).Checks {
			if c.Name == "iam own account" && (c.OK || !strings.Contains(c.Remedy, want)) {
				t.Errorf("%s: want a remedy with %q, got %+v", region, want, c)
			}
		}
	}
}

// loadMatching returns a set of one profile.
func loadMatching(t *testing.T, match string) *grant.Set {
	t.Helper()
	set, err := grant.Load(fstest.MapFS{
		"p/profile.yaml": {Data: []byte("name: alice-p0\nmatch: {" + match + ", vpc_ids: [vpc-0a1b2c3d]}\nbase_path: alice\nfqdn: \"{{ .PrivateDNSName }}\"\n" +
			"auth: {token_ttl: 1h, token_max_ttl: 24h}\noutputs:\n  - {name: kubelet, type: pki-role, path: pki/k8s/roles, template: role.json.tmpl}\n" +
			"  - {name: node, type: policy, template: policy.hcl.tmpl}\n")},
		"p/policy.hcl.tmpl": {Data: []byte(`{{ pkiAccess "kubelet" }}`)},
		"p/role.json.tmpl":  {Data: []byte(`{"max_ttl": "24h"}`)},
	})
	if err != nil {
		t.Fatalf("the profile must load: %v", err)
	}
	return set
}
