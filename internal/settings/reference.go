package settings

import "slices"

// Variable is one variable that Load reads, for the reference in docs/configuration.md.
type Variable struct {
	Name     string
	Required bool
	Default  string   // empty for none
	Values   []string // the only ones it takes; nil where it is free
	Meaning  string
}

// Reference returns every variable that Load reads, in its order: name, default and values as Load has them.
func Reference() []Variable {
	r := reader{getenv: func(string) string { return "" }, seen: &[]Variable{}}
	read(&r)
	var out []Variable
	for _, v := range *r.seen {
		if !slices.ContainsFunc(out, func(o Variable) bool { return o.Name == v.Name }) {
			v.Meaning = meanings()[v.Name]
			out = append(out, v)
		}
	}
	return out
}

func meanings() map[string]string {
	return map[string]string{
		"TABLE_NAME":              "DynamoDB table of the ledger",
		"DEPLOYMENT_ID":           "the deployment's ID, the owner in every marker: the stack's name",
		"VAULT_ADDR":              "address of Vault, https://host:port",
		"VAULT_NAMESPACE":         "Vault Enterprise namespace",
		"VAULT_CA_SECRET_ARN":     "secret whose string is the PEM bundle that Vault's certificate chains to; empty for the system's roots",
		"VAULT_LOGIN_METHOD":      "how the functions log in; approle and token read the login secret",
		"VAULT_LOGIN_SECRET_ARN":  "secret with `{\"role_id\",\"secret_id\"}` or `{\"token\"}`",
		"VAULT_LOGIN_MOUNT":       "auth mount the functions log in to",
		"VAULT_LOGIN_ROLE":        "Vault role the functions log in to; the template appends each function's name",
		"VAULT_IAM_SERVER_ID":     "value of the `X-Vault-AWS-IAM-Server-ID` header that the auth mount expects",
		"VAULT_STS_REGION":        "region of the STS request that is signed; empty for the function's own",
		"VAULT_STS_ENDPOINT":      "STS endpoint to sign for; empty for the region's own",
		"VAULT_AUTH_MOUNT":        "AWS auth mount that receives one role for each instance",
		"MEMBER_ROLE_NAME":        "name of the role to assume in other accounts; empty if all instances are in the functions' own",
		"MEMBER_ROLE_EXTERNAL_ID": "external ID that the role requires; empty for the deployment ID",
		"CONFLICT_MODE":           "what to do with a foreign object at the path of a grant's object",
		"DEPROVISION_ON":          "the state in which an instance loses its access",
		"REVOKE_CERTIFICATES":     "`true` revokes the leased certificates of the instance's PKI roles",
		"MAX_CERTIFICATE_TTL":     "longest `max_ttl` that a PKI role of a profile may have, as a Go duration of whole seconds",
		"TEMPLATES_DIR":           "folder of profiles in place of the built-in ones",
		"EVENT_BUS_NAME":          "name or ARN of the bus for [audit events](events.md); empty for log lines only",
		"HOOK_PREFIX":             "prefix of the names of the [lifecycle hooks](auto-scaling.md) that are answered; others are ignored",
		"HOOK_ON_REFUSAL":         "answer to the hook of a launching instance that gets no identity",
		"READY_TAG":               "key of a [tag on each instance](auto-scaling.md#without-a-group) that is `ready` once its identity is; empty for none",
		"RECONCILE_MODE":          "mode of a run whose input names none",
		"ALLOWED_ACCOUNTS":        "other accounts, besides the functions' own and RECONCILE_ACCOUNTS, whose instances may get a grant; comma-separated",
		"RECONCILE_ACCOUNTS":      "accounts whose instances are compared, comma-separated; empty for the function's own",
		"RECONCILE_REGIONS":       "regions whose instances are compared, comma-separated; empty for the function's own",
		"DELETE_LIMIT_PERCENT":    "delete limit in percent of the recorded instances, of an account or of all; a run above it removes none unless forced. Five removals always pass",
		"CONVERGE_QUEUE_URL":      "provision queue that repairs are sent to; empty: reconcile makes them itself",
		"RECONCILE_QUEUE_URL":     "reconcile's own queue, through which a run that outlasts an invocation continues",
		"LOG_LEVEL":               "log lines of this level and above",
	}
}
