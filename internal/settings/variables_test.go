package settings_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/settings"
)

// variable is one variable that Load reads, as docs/configuration.md describes it.
type variable struct {
	name     string
	required bool
	standard string   // the default; empty if there is none, or if it is the first of values
	values   []string // the only valid ones, the default first; nil if any text of the right form is valid
	meaning  string
}

// def returns the default, empty if there is none.
func (v variable) def() string {
	if len(v.values) > 0 {
		return v.values[0]
	}
	return v.standard
}

// variables returns all variables in the order in which Load reads them.
func variables() []variable {
	return []variable{
		{name: "TABLE_NAME", required: true, meaning: "DynamoDB table of the ledger"},
		{name: "DEPLOYMENT_ID", required: true, meaning: "the deployment's ID, the owner in every marker: the stack's name"},
		{name: "VAULT_ADDR", required: true, meaning: "address of Vault, https://host:port"},
		{name: "VAULT_NAMESPACE", meaning: "namespace of Vault Enterprise or OpenBao; empty for the root one"},
		{name: "VAULT_CA_SECRET_ARN",
			meaning: "secret whose string is the PEM bundle that Vault's certificate chains to; empty for the system's roots"},
		{name: "VAULT_LOGIN_METHOD", values: []string{"iam", "approle", "token"},
			meaning: "how the functions log in; approle and token read the login secret"},
		{name: "VAULT_LOGIN_SECRET_ARN", meaning: "secret with `{\"role_id\",\"secret_id\"}` or `{\"token\"}`"},
		{name: "VAULT_LOGIN_MOUNT", standard: "aws", meaning: "auth mount the functions log in to"},
		{name: "VAULT_LOGIN_ROLE", standard: "ec2-provisioner",
			meaning: "Vault role the functions log in to; the template appends each function's name"},
		{name: "VAULT_IAM_SERVER_ID", meaning: "value of the `X-Vault-AWS-IAM-Server-ID` header that the auth mount expects"},
		{name: "VAULT_STS_REGION", meaning: "region of the STS request that is signed; empty for the function's own"},
		{name: "VAULT_STS_ENDPOINT", meaning: "STS endpoint to sign for; empty for the region's own"},
		{name: "VAULT_AUTH_MOUNT", standard: "aws", meaning: "AWS auth mount that receives one role for each instance"},
		{name: "MEMBER_ROLE_NAME",
			meaning: "name of the role to assume in other accounts; empty if all instances are in the functions' own"},
		{name: "ALLOWED_ACCOUNTS",
			meaning: "other accounts, besides the functions' own and RECONCILE_ACCOUNTS, whose instances may get a grant; comma-separated, or @ and a file of the package, or * for every account with the member role"},
		{name: "MEMBER_ROLE_EXTERNAL_ID", meaning: "external ID that the role requires; empty for the deployment ID"},
		{name: "CONFLICT_MODE", values: []string{"refuse", "adopt"},
			meaning: "what to do with a foreign object at the path of a grant's object"},
		{name: "DEPROVISION_ON", values: []string{"terminated", "shutting-down"},
			meaning: "the state in which an instance loses its access"},
		{name: "REVOKE_CERTIFICATES", values: []string{"false", "true", "all"},
			meaning: "`true` revokes the leased certificates of the instance's PKI roles"},
		{name: "MAX_CERTIFICATE_TTL", standard: "8760h",
			meaning: "longest `max_ttl` that a PKI role of a profile may have, as a Go duration of whole seconds"},
		{name: "TEMPLATES_DIR", meaning: "folder of profiles in place of the built-in ones"},
		{name: "PROFILES", standard: "built-in",
			meaning: "`built-in`; `active` for [those that were activated](profiles.md#profiles-of-your-own) in the ledger; or the digests, comma-separated, of the only ones that may be used, the preferred first"},
		{name: "EVENT_BUS_NAME", meaning: "name or ARN of the bus for [audit events](events.md); empty for log lines only"},
		{name: "HOOK_PREFIX", standard: "vault-identity-",
			meaning: "prefix of the names of the [lifecycle hooks](auto-scaling.md) that are answered; others are ignored"},
		{name: "HOOK_ON_REFUSAL", values: []string{"abandon", "continue"},
			meaning: "answer to the hook of a launching instance that gets no identity"},
		{name: "NAME_WAIT", standard: "10m",
			meaning: "how long a launch hook [waits for a name](auto-scaling.md#a-name-that-changes-hands) that a live instance holds, as a Go duration of whole seconds; at most 1h, `0s` not to wait"},
		{name: "PROVISION_QUEUE_URL", meaning: "provision queue that instances are sent to when a name they wait for is free; empty: they wait for reconcile"},
		{name: "QUARANTINE_SEVERITY", values: []string{"off", "low", "medium", "high"},
			meaning: "lowest severity of a [finding of GuardDuty](quarantine.md#by-a-finding-of-guardduty) that puts an instance into quarantine"},
		{name: "READY_TAG",
			meaning: "key of a [tag on each instance](auto-scaling.md#without-a-group) that is `ready` once its identity is; empty for none"},
		{name: "RECONCILE_MODE", values: []string{"correct", "detect"}, meaning: "mode of a run whose input names none"},
		{name: "RECONCILE_ACCOUNTS",
			meaning: "accounts whose instances are compared, comma-separated; `<account>:<region>` for one region alone, also outside of RECONCILE_REGIONS; or @ and a file of the package; empty for the function's own"},
		{name: "RECONCILE_REGIONS", meaning: "regions whose instances are compared, comma-separated; empty for the function's own"},
		{name: "DELETE_LIMIT_PERCENT", standard: "20",
			meaning: "delete limit in percent of the recorded instances, of an account or of all; a run above it removes none unless forced. Five removals always pass"},
		{name: "CONVERGE_QUEUE_URL", meaning: "provision queue that repairs are sent to; empty: reconcile makes them itself"},
		{name: "RECONCILE_QUEUE_URL", meaning: "reconcile's own queue, through which a run that outlasts an invocation continues"},
		{name: "LOG_LEVEL", values: []string{"info", "debug", "warn", "error"}, meaning: "log lines of this level and above"},
	}
}

// TestVariables_AgreeWithLoad holds the list above, and with it the page, against the code.
func TestVariables_AgreeWithLoad(t *testing.T) {
	var read, listed []string
	_, missing := settings.Load(func(name string) string {
		if !slices.Contains(read, name) {
			read = append(read, name)
		}
		return ""
	}, fstest.MapFS{})
	minimal, err := load(nil)
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]bool{}
	for _, value := range baseline {
		defaults[value] = true
	}
	for _, v := range variables() {
		listed = append(listed, v.name)
		if required := strings.Contains(fmt.Sprint(missing), v.name+" is required"); required != v.required {
			t.Errorf("%s: required is %v, want %v", v.name, v.required, required)
		}
		if v.meaning == "" {
			t.Errorf("%s has no meaning", v.name)
		}
		_, err := load(map[string]string{v.name: "|"})
		if oneOf := "is none of " + strings.Join(v.values, ", "); strings.Contains(fmt.Sprint(err), "is none of") != (v.values != nil) ||
			(v.values != nil && !strings.HasSuffix(fmt.Sprint(err), oneOf)) {
			t.Errorf("%s: values are %q, but Load says %v", v.name, v.values, err)
		}
		if v.def() == "" {
			continue
		}
		if got, err := load(map[string]string{v.name: v.def()}); err != nil || !reflect.DeepEqual(got, minimal) {
			t.Errorf("%s: want %q to be the default, got %+v, %v", v.name, v.def(), got, err)
		}
		defaults[v.def()] = true
		if d, err := time.ParseDuration(v.def()); err == nil {
			defaults[d.String()] = true
		}
	}
	if !slices.Equal(read, listed) {
		t.Errorf("Load reads\n%q, listed are\n%q", read, listed)
	}
	eachLeaf(reflect.ValueOf(minimal), func(v reflect.Value) {
		if text := fmt.Sprint(v.Interface()); !v.IsZero() && !defaults[text] {
			t.Errorf("%q is a default of no variable", text)
		}
	})
}

// eachLeaf calls f with each field of a struct that is not itself a struct.
func eachLeaf(v reflect.Value, f func(reflect.Value)) {
	for i := range v.NumField() {
		if field := v.Field(i); field.Kind() == reflect.Struct {
			eachLeaf(field, f)
		} else {
			f(field)
		}
	}
}
