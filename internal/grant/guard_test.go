package grant_test

import (
	"strings"
	"testing"
)

func TestLoad_RefusesPoliciesThatReachTooFar(t *testing.T) {
	for name, row := range map[string]struct{ block, says string }{
		"sudo":                                {`path "alice_cluster/kv/x" { capabilities = ["sudo"] }`, "sudo"},
		"no capabilities":                     {`path "alice_cluster/kv/x" { }`, "no capabilities"},
		"the old policy key":                  {`path "alice_cluster/kv/x" { policy = "write" }`, "unknown key"},
		"sys":                                 {`path "sys/mounts" { capabilities = ["read"] }`, "outside the base path"},
		"auth":                                {`path "auth/aws/role/i-0123456789abcdef1" { capabilities = ["update"] }`, "outside the base path"},
		"identity":                            {`path "identity/entity/id/*" { capabilities = ["delete"] }`, "outside the base path"},
		"another cluster":                     {`path "bob_cluster/kv/x" { capabilities = ["read"] }`, "outside the base path"},
		"a longer name of a cluster":          {`path "alice_cluster2/kv/x" { capabilities = ["read"] }`, "outside the base path"},
		"a glob in place of the base path":    {`path "+/kv/x" { capabilities = ["read"] }`, "outside the base path"},
		"every path":                          {`path "*" { capabilities = ["read"] }`, "outside the base path"},
		"a dot segment":                       {`path "alice_cluster/../sys/x" { capabilities = ["read"] }`, "dot segment"},
		"issuing without a parameter list":    {`path "alice_cluster/pki/k8s/issue/any" { capabilities = ["update"] }`, "pkiAccess"},
		"issuing by a glob":                   {`path "alice_cluster/pki/*" { capabilities = ["update"] }`, "pkiAccess"},
		"issuing by a segment":                {`path "alice_cluster/+/k8s/issue/any" { capabilities = ["update"] }`, "pkiAccess"},
		"issuing by two segments":             {`path "alice_cluster/+/+/issue/any" { capabilities = ["update"] }`, "pkiAccess"},
		"issuing by a prefix":                 {`path "alice_cluster/pk*" { capabilities = ["update"] }`, "pkiAccess"},
		"the whole base path":                 {`path "alice_cluster/*" { capabilities = ["read"] }`, "pkiAccess"},
		"sign-verbatim":                       {`path "alice_cluster/pki/k8s/sign-verbatim" { capabilities = ["update"] }`, "no PKI role bounds it"},
		"sign-verbatim on any mount":          {`path "alice_cluster/legacy/sign-verbatim/x" { capabilities = ["update"] }`, "no PKI role bounds it"},
		"a wildcard inside a parameter value": {`path "alice_cluster/ssh/sign/x" { capabilities = ["update"] allowed_parameters = { "valid_principals" = ["host-*"] } }`, "has a wildcard"},
		"a wildcard inside a listed value":    {`path "alice_cluster/ssh/sign/x" { capabilities = ["update"] allowed_parameters = { "valid_principals" = ["root", ["root", "host-*"]] } }`, "in a list of parameter"},
		"a wildcard in a list of lists":       {`path "alice_cluster/ssh/sign/x" { capabilities = ["update"] allowed_parameters = { "valid_principals" = [["root", ["*"]]] } }`, "in a list of parameter"},
		"a foreign element in a named list":   {`{{ pkiAccess "kubelet" | replace "[\"192.0.2.1\", " "[\"8.8.8.8\", \"192.0.2.1\", " }}`, "differs from the rule of pkiAccess"},
		"another element in a named list":     {`{{ pkiAccess "kubelet" | replace "[\"192.0.2.1\"]" "[\"8.8.8.8\"]" }}`, "differs from the rule of pkiAccess"},
		"a list more":                         {`{{ pkiAccess "kubelet" | replace "\"ip_sans\" = [" "\"ip_sans\" = [[\"8.8.8.8\"], " }}`, "differs from the rule of pkiAccess"},
		"an element in place of its list":     {`{{ pkiAccess "kubelet" | replace "[\"192.0.2.1\"]" "\"192.0.2.1\"" }}`, "differs from the rule of pkiAccess"},
		"a wildcard unknown to Vault":         {`path "alice_cluster/kv/+*" { capabilities = ["read"] }`, "not a wildcard"},
		"writing a PKI role":                  {`path "alice_cluster/pki/k8s/roles/x" { capabilities = ["update"] }`, "pkiAccess"},
		"writing a public path":               {`path "alice_cluster/pki/k8s/cert/ca" { capabilities = ["update"] }`, "pkiAccess"},
		"one more right to its own token":     {`path "auth/token/lookup-self" { capabilities = ["read", "update"] }`, "only"},
		"a path twice":                        {`path "alice_cluster/kv/x" { capabilities = ["read"] }` + "\n" + `path "alice_cluster/kv/x" { capabilities = ["list"] }`, "twice"},
		"a key twice":                         {`path "alice_cluster/kv/x" { capabilities = ["read"]` + "\n" + `capabilities = ["list"] }`, "already set"},
		"a block of another kind":             {`name = "x"`, "only blocks"},
		"its own lock without parameters":     {`path "alice_cluster/pki/k8s/issue/i-00000000000000000-kubelet" { capabilities = ["update"] }`, "pki"},
		"reading its policy by hand":          {`path "sys/policies/acl/ec2-i-00000000000000000-node" { capabilities = ["read"] }`, "outside the base path"},
		"more than reading its own policy":    {`{{ identityAccess | replace "\"read\"" "\"read\", \"update\"" }}`, "differs from the rule of"},
		"a document of its own path":          {`{{ identityAccess | replace "-node" "-*" }}`, "outside the base path"},
		"a document twice":                    {`{{ identityAccess }} {{ identityAccess }}`, "appears twice"},
		"a document with other names":         {`{{ identityAccess | replace "fqdn" "x" }}`, "only identityAccess may write"},
		"a document inside a line":            {`path "alice_cluster/kv/x" { capabilities = ["read"] }{{ identityAccess }}`, "only identityAccess may write"},
		"a document that is indented":         {`  {{ identityAccess }}`, "only identityAccess may write"},
		"a document by hand":                  {"# identity: {}\n{{ identityAccess }}", "only identityAccess may write"},
		"subscribe":                           {`path "alice_cluster/kv/x" { capabilities = ["subscribe"] }`, "subscribe"},
		"an unquoted path":                    {`path alice_cluster { capabilities = ["read"] }`, "path"},
	} {
		t.Run(name, func(t *testing.T) {
			wantFault(t, filesWith(text("worker/policy.hcl.tmpl", row.block)), "policy.hcl.tmpl", row.says)
		})
	}
}

func TestLoad_AcceptsNestedJSONAndParameters(t *testing.T) {
	loaded(t, filesWith(text("worker/host.json.tmpl", `{"data":{"a":{"b":"c"}}}`),
		text("worker/policy.hcl.tmpl", `path "alice_cluster/kv/x" { capabilities = ["update"] allowed_parameters = {"a" = []}}`)))
	rendered(t, filesWith(text("worker/policy.hcl.tmpl", `path "alice_cluster/ssh/sign/x" {
  capabilities = ["update"]
  allowed_parameters = { "valid_principals" = ["{{ .FQDN }}", ["{{ .FQDN }}", "{{ .Tag "team" }}"]] }
}`)), baseline())
}

func TestLoad_NamesFaultByFileLineAndRule(t *testing.T) {
	wantFault(t, filesWith(text("worker/policy.hcl.tmpl", `# line 1
{{ pkiAccess "kubelet" }}

path "alice_cluster/kv/x" {
  capabilities = ["read"]
}
path "sys/mounts" {
  capabilities = ["read"]
}
`)), "worker/policy.hcl.tmpl:7: ", `is outside the base path "alice_cluster"`)
}

func TestLoad_AcceptsHarmlessPolicyPaths(t *testing.T) {
	loaded(t, filesWith(text("worker/policy.hcl.tmpl", `path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "alice_cluster/pki/k8s/cert/ca" { capabilities = ["read"] }
path "alice_cluster/pki/k8s/*" { capabilities = ["deny"] }
path "alice_cluster/kv/+/shared/*" { capabilities = ["read", "list"] }
`)))
}

func TestPKIMount_OfOtherProfileIsOutOfReach(t *testing.T) {
	etcd := strings.NewReplacer("alice_cluster-worker", "alice_cluster-etcd", "role/alice-worker", "role/alice-etcd", "pki/k8s", "pki/etcd").Replace(baselineProfile)
	loaded(t, filesWith(second(etcd)))
	reaching := text("master/policy.hcl.tmpl", `path "alice_cluster/pki/k8s/issue/x" { capabilities = ["update"] }`)
	wantFault(t, filesWith(second(etcd), reaching), "reaches the PKI mount")
}
