package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/access"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// organization is the one of the central account and of the member account.
var organization = full["OrganizationId"]

// requestKeys are a request's condition keys.
type requestKeys = map[string][]string

// having returns a context of one key.
func having(key string, values ...string) requestKeys { return requestKeys{key: values} }

func keys(values ...string) requestKeys { return having("dynamodb:LeadingKeys", values...) }

// realm is the central stack and a member account's, with all their policies.
type realm struct {
	t               *testing.T
	central, member installation
	policies        []placed
}

// placed is one statement of a policy, where it applies.
type placed struct {
	name      string // for messages
	holder    string // ARN of the role of an identity policy, or of the resource with the policy
	identity  bool
	statement access.Statement
}

const keyARN = "arn:aws:kms:us-east-1:123456789012:key/k"

// newRealm installs both templates. The member account trusts the central functions.
func newRealm(t *testing.T, parameters map[string]string) realm {
	t.Helper()
	a := realm{t: t, central: install(t, product(t), parameters, parts.AccountID)}
	functions := []string{a.central.arn("ProvisionFunctionRole"), a.central.arn("DeprovisionFunctionRole"), a.central.arn("ReconcileFunctionRole")}
	a.member = install(t, shared(t, memberTemplate), map[string]string{
		"CentralEventBusArn": "arn:aws:events:" + region + ":" + parts.AccountID + ":event-bus/default",
		"FunctionRoleArns":   strings.Join(functions, ","), "MemberRoleName": "member", "ExternalId": stackName, "RolesRegion": region,
		"VaultPrincipalArns": vaultARN, "ReadyTag": full["ReadyTag"],
	}, memberAccount)
	for _, i := range []installation{a.central, a.member} {
		for _, p := range i.policies() {
			holder := "arn:aws:events:" + region + ":" + i.account + ":event-bus/" + p.owner
			if i.resources[p.owner] != nil {
				holder = i.arn(p.owner)
			}
			for n, s := range p.statements {
				a.policies = append(a.policies, placed{fmt.Sprintf("%s, statement %d", p.name, n+1), holder, p.kind == access.Identity, s})
			}
		}
	}
	// The key's policy is the default one, with the statements that docs/deploying.md shows.
	a.policies = append(a.policies, keyStatement(t, map[string]any{
		"Effect": "Allow", "Principal": map[string]any{"AWS": "arn:aws:iam::" + parts.AccountID + ":root"}, "Action": "kms:*", "Resource": "*",
	}))
	for _, s := range shownInPages(t) {
		if s.file == "docs/deploying.md" {
			a.policies = append(a.policies, keyStatement(t, s.statement))
		}
	}
	return a
}

func keyStatement(t *testing.T, statement any) placed {
	t.Helper()
	s, err := access.ParseStatement(statement)
	if err != nil {
		t.Fatal(err)
	}
	return placed{"the key's policy", keyARN, false, s}
}

// request is a row of the table.
type request struct {
	by               access.Caller
	admin            bool // the caller's own policy allows everything
	action, resource string
	context          requestKeys
	want             bool
}

func (r request) String() string {
	return fmt.Sprintf("%s%s: %s on %s with %v", r.by.Role, r.by.Service, r.action, r.resource, r.context)
}

// allowed evaluates a request with these policies.
func (a realm) allowed(r request, policies []placed) bool {
	a.t.Helper()
	place := r.resource
	if place == "*" {
		place = r.by.Role
	}
	account := ""
	if fields := strings.SplitN(place, ":", 6); len(fields) == 6 {
		account = fields[4]
	}
	q := access.Request{Caller: r.by, Action: r.action, Resource: r.resource, Account: account, Context: r.context}
	var p access.Policies
	if r.admin {
		p.Identity = []access.Statement{{Effect: "Allow", Actions: []string{"*"}, Resources: []string{"*"}}}
	}
	for _, one := range policies {
		switch {
		case one.identity && one.holder == r.by.Role:
			p.Identity = append(p.Identity, one.statement)
		case !one.identity && one.holder == r.resource:
			p.Resource = append(p.Resource, one.statement)
		}
	}
	yes, err := access.Allowed(q, p)
	if err != nil {
		a.t.Errorf("%v: %v", r, err)
	}
	return yes
}

// code returns a request by a function's code. Lambda adds the function to its session.
// https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
func (a realm) code(function, action, resource string, given requestKeys, want bool) request {
	r := a.lambda(function, action, resource, given, want)
	r.context["lambda:SourceFunctionArn"] = []string{a.central.arn(function + "Function")}
	return r
}

// lambda returns a request by Lambda itself with a function's role.
func (a realm) lambda(function, action, resource string, given requestKeys, want bool) request {
	c := requestKeys{"aws:PrincipalOrgID": {organization}, "aws:ResourceOrgID": {organization}}
	maps.Copy(c, given)
	return request{by: access.Caller{Role: a.central.arn(function + "FunctionRole")}, action: action, resource: resource, context: c, want: want}
}

// perFunction returns a request by each function, of which those with their initial in may are to be allowed.
func (a realm) perFunction(calls []call, by func(function, action, resource string, given requestKeys, want bool) request, hasOptions bool) []request {
	var out []request
	for _, c := range calls {
		may, optional := strings.CutSuffix(c.may, "?")
		if optional && !hasOptions {
			may = ""
		}
		for _, function := range []string{"Provision", "Deprovision", "Reconcile"} {
			out = append(out, by(function, c.action, c.resource, c.context, strings.Contains(may, function[:1])))
		}
	}
	return out
}

// possible checks that AWS could get a request: its action exists, its resource is one of the action's, and so are its keys.
func possible(t *testing.T, r request) {
	t.Helper()
	s := access.Statement{Effect: "Deny", Actions: []string{r.action}, Resources: []string{r.resource}}
	faults := reference(t).Faults(s, access.Identity)
	for _, action := range reference(t).Expand(r.action) {
		for key := range r.context {
			if _, known := reference(t).KeyType(action, r.resource, key); !known {
				faults = append(faults, "it never has the key "+key)
			}
		}
	}
	if len(faults) > 0 {
		t.Errorf("%v: AWS never gets such a request: %q", r, faults)
	}
}

// without returns the policies with one statement changed: left out, or without one of its conditions.
func (a realm) without(eachChange func(what string, policies []placed)) {
	for n, p := range a.policies {
		if p.name == "the key's policy" {
			continue
		}
		eachChange(p.name, slices.Delete(slices.Clone(a.policies), n, n+1))
		for c, condition := range p.statement.Conditions {
			changed := slices.Clone(a.policies)
			changed[n].statement.Conditions = slices.Delete(slices.Clone(p.statement.Conditions), c, c+1)
			eachChange(fmt.Sprintf("the condition %s of %s in %s", condition.Operator, condition.Key, p.name), changed)
		}
	}
}
