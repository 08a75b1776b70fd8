package grant_test

import (
	"testing"
	"testing/fstest"
)

func TestLoad_RefusesBadProfiles(t *testing.T) {
	const profile, policy, role, host = "worker/profile.yaml", "worker/policy.hcl.tmpl", "worker/kubelet.json.tmpl", "worker/host.json.tmpl"
	for name, row := range map[string]struct {
		spoil func(fstest.MapFS)
		says  string
	}{
		"an unknown field":                       {replace(profile, "base_path:", "base_paths: x\nbase_path:"), "base_paths"},
		"an unknown field of an output":          {replace(profile, "{name: host,", "{nme: x, name: host,"), "nme"},
		"no match":                               {replace(profile, `{iam_role_arn: "arn:aws:iam::*:role/alice-worker"}`, "{regions: [us-east-1]}"), "iam_role_arn or iam_instance_profile_arn"},
		"an empty list of roles":                 {replace(profile, `"arn:aws:iam::*:role/alice-worker"`, "[]"), "the list of patterns is empty"},
		"an empty list of roles with a profile":  {replace(profile, `{iam_role_arn: "arn:aws:iam::*:role/alice-worker"}`, `{iam_role_arn: [], iam_instance_profile_arn: "*"}`), "the list of patterns is empty"},
		"an empty role":                          {replace(profile, `"arn:aws:iam::*:role/alice-worker"`, `""`), "iam_role_arn or iam_instance_profile_arn"},
		"an empty role in a list":                {replace(profile, `"arn:aws:iam::*:role/alice-worker"`, `["", "*"]`), "line 2: a pattern is empty"},
		"a role that is no text":                 {replace(profile, `"arn:aws:iam::*:role/alice-worker"`, `{a: b}`), "reading a pattern"},
		"a name without a cluster":               {replace(profile, "alice_cluster-worker", "worker"), "<cluster>-<role>"},
		"an invalid account":                     {replace(profile, "match: {", "match: {account_ids: [\"12345\"], "), "neither an account ID nor a pattern"},
		"a pattern too long for an account":      {replace(profile, "match: {", "match: {account_ids: [\"123456789012*\"], "), "neither an account ID nor a pattern"},
		"an output name with a hyphen":           {replace(profile, "name: host", "name: ho-st"), "ho-st"},
		"an output name twice":                   {replace(profile, "name: host", "name: node"), "twice"},
		"a base path of Vault's own":             {replace(profile, "base_path: alice_cluster", "base_path: sys/policies"), "belongs to Vault itself"},
		"a base path with a dot segment":         {replace(profile, "base_path: alice_cluster", "base_path: alice/../sys"), "base_path"},
		"a base path with the claim's separator": {replace(profile, "base_path: alice_cluster", `base_path: "a#b"`), "base_path"},
		"a PKI role outside roles":               {replace(profile, "path: pki/k8s/roles", "path: pki/k8s/config"), "<PKI mount>/roles"},
		"an unknown type":                        {replace(profile, "type: generic", "type: secret"), "none of policy, pki-role, ssh-role, generic"},
		"a policy with a path":                   {replace(profile, "type: policy,", "type: policy, path: x,"), "neither path nor names"},
		"a generic object with names":            {replace(profile, "type: generic,", "type: generic, dns_names: [x],"), "no names"},
		"a missing template":                     {replace(profile, "host.json.tmpl", "gone.json.tmpl"), "gone.json.tmpl"},
		"a template outside its folder":          {replace(profile, "host.json.tmpl", "../x.tmpl"), "beside profile.yaml"},
		"a maximum below the TTL":                {replace(profile, "token_max_ttl: 24h", "token_max_ttl: 1m"), "shorter than token_ttl"},
		"the root policy as an extra":            {replace(profile, "bind_token", "extra_policies: [root], bind_token"), "root"},
		"another instance's policy as an extra":  {replace(profile, "bind_token", "extra_policies: [ec2-i-0123456789abcdef1-node], bind_token"), "generated policy"},
		"an unknown value":                       {replace(policy, ".InstanceID", ".InstanceId"), "InstanceId"},
		"an unknown value in a branch not taken": {replace(policy, "{{ pkiAccess", "{{ if false }}{{ .Nope }}{{ end }}{{ pkiAccess"), "Nope"},
		"a value inside range without $":         {replace(policy, "{{ pkiAccess", "{{ range .IPv4s }}{{ .FQDN }}{{ end }}{{ pkiAccess"), "$.FQDN"},
		"an unknown value inside else":           {replace(policy, "{{ pkiAccess", "{{ if true }}{{ else }}{{ $.Nope }}{{ end }}{{ pkiAccess"), "Nope"},
		"a field of a variable":                  {replace(policy, "{{ pkiAccess", "{{ $x := .FQDN }}{{ if false }}{{ $x.Nope }}{{ end }}{{ pkiAccess"), "has no fields"},
		"an unknown function":                    {replace(policy, "{{ .InstanceID }}", "{{ env \"HOME\" }}"), "env"},
		"a built-in that is not supported":       {replace(policy, "{{ .InstanceID }}", "{{ printf \"%s\" .InstanceID }}"), "printf"},
		"a tag without its key":                  {replace(policy, "{{ .InstanceID }}", "{{ .Tag }}"), ".Tag"},
		"a definition":                           {replace(policy, "{{ pkiAccess", `{{ define "x" }}{{ end }}{{ pkiAccess`), "not supported"},
		"pkiAccess to an unknown output":         {replace(policy, `pkiAccess "kubelet"`, `pkiAccess "other"`), "names no pki-role output"},
		"pkiAccess by a computed name":           {replace(policy, `pkiAccess "kubelet"`, `pkiAccess .FQDN`), "literal name"},
		"pkiAccess outside a policy":             {replace(host, "ca", `{{ pkiAccess "kubelet" }}`), "for policies"},
		"a name from a tag":                      {replace(profile, `"system:node:{{ .FQDN }}"`, `"{{ .Tag \"name\" }}"`), "through fqdn"},
		"a text that is not a policy":            {replace(policy, "capabilities", "capabilities capabilities"), "policy.hcl.tmpl"},
		"a text that is not JSON":                {replace(role, "{", "["), "kubelet.json.tmpl"},
		"text behind the JSON object":            {replace(role, "}", "}{}"), "behind the JSON object"},
		"a role field unknown to Vault":          {replace(role, "max_ttl", "maximum_ttl"), "unknown field"},
		"a locked role field":                    {replace(role, `"max_ttl": "24h"`, `"allow_any_name": true`), "set by the program"},
		"a role field of another type":           {replace(role, `"24h"`, `["24h"]`), "max_ttl"},
		"Vault's own template marks":             {replace(policy, "kv/data/{{ .InstanceID }}", `{{ "{{" }}identity.entity.id}}`), "{{ or }}"},
		"Vault's own template marks, escaped":    {replace(policy, "kv/data/{{ .InstanceID }}", `\x7b\x7bidentity.entity.id\x7d\x7d`), "{{ or }}"},
		"the dot alone":                          {replace(policy, "{{ .InstanceID }}", "{{ . }}"), "all values at once"},
		"the dollar alone":                       {replace(policy, "{{ .InstanceID }}", "{{ range .IPv4s }}{{ $ }}{{ end }}"), "all values at once"},
		"a range over a number":                  {replace(policy, "{{ .InstanceID }}", "{{ range 1000000000 }}x{{ end }}"), "range goes over .IPv4s or .IPv6s"},
		"a range over a number in brackets":      {replace(policy, "{{ .InstanceID }}", "{{ range (300000000) }}{{ end }}"), "range goes over .IPv4s or .IPv6s"},
		"a tag that decides a branch":            {replace(policy, "{{ pkiAccess", `{{ if eq (.Tag "team") "root" }}# x{{ end }}{{ pkiAccess`), "no branch may depend on a tag"},
		"a tag that decides in a variable":       {replace(policy, "{{ pkiAccess", `{{ $t := .Tag "team" }}{{ if eq $t "root" }}# x{{ end }}{{ pkiAccess`), "cannot be put into a variable"},
		"a tag that decides a with":              {replace(policy, "{{ pkiAccess", `{{ with .Tag "team" }}# {{ . }}{{ end }}{{ pkiAccess`), "no branch may depend on a tag"},
		"a tag compared and printed":             {replace(host, "ca", `{{ eq (.Tag "team") "root" }}`), "eq cannot use a tag"},
		"a tag as an organization":               {replace(role, "system:nodes", `{{ .Tag "team" }}`), "no tag may be in a certificate"},
		"a negative duration":                    {replace(role, `"24h"`, `"-1h"`), "max_ttl"},
		"a PKI role as a generic object":         {replace(host, `"key_type"`, `"allow_any_name": true, "key_type"`), "use type pki-role"},
		"a generic object on a PKI mount":        {replace(profile, "path: ssh/roles", "path: pki/k8s/roles"), "use type pki-role"}, // it has no lock
		"a generic object in KV version 2":       {replace(profile, "path: ssh/roles", "path: kv/data/hosts"), "KV engine"},
		"a second document":                      {replace(profile, "name: alice_cluster-worker", "name: alice_cluster-worker\n---\nname: x"), "second document"},
		"an unknown client style":                {replace(profile, "base_path:", "client_style: chatty\nbase_path:"), "client_style"},
		"a shared name from a tag":               {replace(profile, "template: kubelet.json.tmpl", `shared_dns_names: ["{{ .Tag \"name\" }}"], template: kubelet.json.tmpl`), "through fqdn"},
		"an empty pattern for a tag":             {replace(profile, "{iam_role_arn:", `{tags: {a: ""}, iam_role_arn:`), "also an empty one"},
	} {
		t.Run(name, func(t *testing.T) {
			wantFault(t, filesWith(row.spoil), "worker/", row.says)
		})
	}
}

func TestLoad_ReportsEveryFaultAtOnce(t *testing.T) {
	wantFault(t, filesWith(replace("worker/profile.yaml", "fqdn:", "fqnd:"), text("broken/profile.yaml", "name: x")),
		"worker/profile.yaml", "broken/profile.yaml", "fqnd", "base_path", "outputs")
}
