package integration

import (
	"net/http"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

const (
	jsonText = "application/json"
	htmlText = "text/html"
)

// toItself returns the redirect of a standby to another standby. The tap is both.
func toItself(l *lab.Line, c tap.Call) *tap.Fault {
	return &tap.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {l.Taps.Vault.URL + c.Path}}}
}

// vaultOutages returns Vault's faults while a grant is made, except those in faults_test.go and those of a leader that is lost,
// which infra/lab/cluster has from a real cluster.
func vaultOutages() []outage {
	const (
		writes   = "PUT"
		policies = "sys/policies/acl/"
		roles    = "/pki/k8s/roles/"
		logins   = "auth/aws/role/"
	)
	return []outage{
		{name: "Vault's leader lost while a policy is stored", hits: vaultCall(writes, policies), want: retry,
			play: answers(http.StatusBadRequest, jsonText, `{"errors":["failed to persist policy: leadership lost while committing log"]}`)},
		{name: "Vault a standby that redirects to itself", hits: anyVaultCall, play: toItself, want: retry, cold: true},
		{name: "Vault a standby that redirects a write to itself", hits: vaultCall(writes, logins), play: toItself, want: retry},
		{name: "Vault in recovery, 472", hits: vaultCall(writes, ""), play: answers(472, jsonText, `{"errors":[]}`), want: retry},
		{name: "Vault a performance standby, 473", hits: vaultCall(writes, ""), play: answers(473, jsonText, `{"errors":[]}`), want: retry},
		{name: "Vault at its rate limit, 429 with Retry-After of an hour", hits: vaultCall(writes, ""), want: retry,
			play: plays(tap.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3600"}}, Body: []byte(`{"errors":["request path is rate limited"]}`)})},
		{name: "Vault 500 at a read", hits: vaultCall("GET", policies), play: answers(http.StatusInternalServerError, jsonText, `{"errors":["internal error"]}`), want: retry},
		{name: "Vault 500 at a write", hits: vaultCall(writes, policies), play: answers(http.StatusInternalServerError, jsonText, `{"errors":["internal error"]}`), want: retry},
		{name: "Vault 502 from a load balancer, no JSON", hits: vaultCall(writes, roles), play: answers(http.StatusBadGateway, htmlText, "<html>502 Bad Gateway</html>"), want: retry},
		{name: "Vault 503 from a load balancer, empty", hits: vaultCall("GET PUT", ""), play: answers(http.StatusServiceUnavailable, htmlText, ""), want: retry},
		{name: "Vault 504 after the write", hits: vaultCall(writes, logins), play: plays(tap.Fault{Status: http.StatusGatewayTimeout, Forward: true}), want: retry},
		{name: "Vault 200 with a login page instead of JSON", hits: vaultCall("GET", ""), play: answers(http.StatusOK, htmlText, "<html>please log in</html>"), want: retry},
		{name: "Vault 404 at a write, its mount gone", hits: vaultCall(writes, roles), play: answers(http.StatusNotFound, jsonText, `{"errors":["no handler for route"]}`), want: retry},
		{name: "Vault 403 permanently, a right missing", hits: vaultCall(writes, policies), play: answers(http.StatusForbidden, jsonText, `{"errors":["permission denied"]}`), want: retry},
		{name: "Vault 403 once, a token revoked", hits: vaultCall(writes, policies), play: once(answers(http.StatusForbidden, jsonText, `{"errors":["permission denied"]}`)), want: overcome},
		{name: "Vault 400 at a PKI role", hits: vaultCall(writes, roles), play: answers(http.StatusBadRequest, jsonText, `{"errors":["key_type is not one of this version's"]}`), want: refuse},
		{name: "Vault warns that it dropped a parameter", hits: vaultCall(writes, roles), want: refuse,
			play: answers(http.StatusOK, jsonText, `{"warnings":["Endpoint ignored these unrecognized parameters: [allowed_uri_sans_template]"]}`)},
		{name: "Vault's answer to a read cut in the middle", hits: vaultCall("GET", roles), want: retry,
			play: plays(tap.Fault{Status: http.StatusOK, Header: http.Header{"Content-Length": {"4096"}}, Body: []byte(`{"data":{"allow`)})},
		{name: "Vault's answer to a write cut in the middle, after the write", hits: vaultCall(writes, logins), want: retry,
			play: plays(tap.Fault{Status: http.StatusOK, Forward: true, Header: http.Header{"Content-Length": {"4096"}}, Body: []byte(`{"request_id":`)})},
		{name: "the connection to Vault cut at every call", hits: anyVaultCall, play: plays(tap.Fault{CutBefore: true}), want: retry, cold: true},
		{name: "the connection to Vault cut after the auth role was written", hits: vaultCall(writes, logins), play: plays(tap.Fault{CutAfter: true}), want: retry},
		{name: "the login to Vault refused, STS throttling Vault", hits: vaultLogin, want: retry, cold: true,
			play: answers(http.StatusBadRequest, jsonText, `{"errors":["error making upstream request: received error code 400 from STS: Throttling"]}`)},
		{name: "the login to Vault at a rate limit", hits: vaultLogin, play: answers(http.StatusTooManyRequests, jsonText, `{"errors":[]}`), want: retry, cold: true},
		{name: "the login to Vault cut", hits: vaultLogin, play: plays(tap.Fault{CutAfter: true}), want: retry, cold: true},
	}
}

// removalOutages returns faults while a grant is removed.
func removalOutages() []outage {
	const (
		remove = "DELETE"
		role   = "auth/aws/role/"
	)
	lookup := func(c tap.Call, _ string) bool { return strings.HasSuffix(c.Path, "/identity/lookup/entity") }
	entity := func(c tap.Call, _ string) bool { return strings.Contains(c.Path, "/identity/entity/id/") }
	return []outage{
		{name: "a removal, the auth role's deletion redirected to itself", hits: vaultCall(remove, role), play: toItself, want: retry, removal: true},
		{name: "a removal, the auth role's deletion has its answer cut", hits: vaultCall(remove, role), play: plays(tap.Fault{CutAfter: true}), want: retry, removal: true},
		{name: "a removal, the entity cannot be found", hits: lookup, play: answers(http.StatusInternalServerError, jsonText, `{"errors":["internal error"]}`), want: retry, removal: true},
		{name: "a removal, the entity cannot be found, 400", hits: lookup, play: answers(http.StatusBadRequest, jsonText, `{"errors":["leadership lost while committing log"]}`), want: retry, removal: true},
		{name: "a removal, the entity's deletion has its answer cut", hits: entity, play: plays(tap.Fault{CutAfter: true}), want: retry, removal: true},
		{name: "a removal, a policy cannot be deleted", hits: vaultCall(remove, "sys/policies/acl/"), want: retry, removal: true,
			play: answers(http.StatusBadRequest, jsonText, `{"errors":["failed to delete policy: leadership lost while committing log"]}`)},
		{name: "a removal, 429 with Retry-After of an hour", hits: vaultCall(remove, ""), want: retry, removal: true,
			play: plays(tap.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3600"}}})},
	}
}

// slowOutages returns slow answers. They come first in the table, since they take longest.
func slowOutages() []outage {
	after := func(d time.Duration) func(*lab.Line, tap.Call) *tap.Fault { return plays(tap.Fault{Delay: d}) }
	const vault, ledger, other = 11 * time.Second, 6 * time.Second, 11 * time.Second // longer than each call's timeout
	return []outage{
		{name: "Vault slow at the auth role", hits: vaultCall("PUT", "auth/aws/role/"), play: after(vault), want: retry, leased: true},
		{name: "Vault slow at a read before the intent", hits: vaultCall("GET", "sys/policies/acl/"), play: after(vault), want: retry},
		{name: "Vault slow at the login", hits: vaultLogin, play: after(vault), want: retry, cold: true},
		{name: "a removal, Vault slow at the auth role", hits: vaultCall("DELETE", "auth/aws/role/"), play: after(vault), want: retry, leased: true, removal: true},
		{name: "EC2 slow", hits: call("ec2", "DescribeInstances"), play: after(other), want: retry},
		{name: "IAM slow", hits: call("iam", "GetInstanceProfile"), play: after(other), want: retry, cold: true},
		{name: "STS slow to say who the function is", hits: call("sts", "GetCallerIdentity"), play: after(other), want: retry, cold: true},
		// Longer than a whole look-up: after one slow call the instances are asked for by ID, and the role is there by then.
		{name: "STS slow to give the member role", hits: call("sts", "AssumeRole"), play: after(25 * time.Second), want: retry, cold: true, account: foreignAccount},
		{name: "Secrets Manager slow", hits: call("secretsmanager", "GetSecretValue"), play: after(ledger), want: retry, cold: true},
		{name: "DynamoDB slow at the read", hits: call("dynamodb", "GetItem"), play: after(ledger), want: retry},
		{name: "DynamoDB slow at the intent", hits: call("dynamodb", "TransactWriteItems"), play: after(ledger), want: retry},
		{name: "DynamoDB slow at the end", hits: call("dynamodb", "PutItem"), play: after(ledger), want: retry, leased: true},
		{name: "Vault slow, but in time", hits: vaultCall("PUT", ""), play: after(2 * time.Second), want: overcome},
		{name: "DynamoDB slow, but in time", hits: call("dynamodb", "TransactWriteItems"), play: after(2 * time.Second), want: overcome},
	}
}
