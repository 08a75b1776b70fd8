package render

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sampleProfile needs nothing of an instance but its role. Each row of the test changes one thing.
const sampleProfile = `name: lab-web
match: {iam_role_arn: "arn:aws:iam::*:role/web"}
base_path: lab
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: node, type: policy, template: node.hcl.tmpl}
  - {name: web, type: pki-role, path: pki/roles, template: web.json.tmpl}
`

const samplePolicy = `{{ pkiAccess "web" }}
path "lab/kv/{{ .InstanceID }}" { capabilities = ["read"] }
`

func TestMadeUp_HasWhatTheProfileNeeds(t *testing.T) {
	const fqdn = `fqdn: "{{ .PrivateDNSName }}"`
	for name, row := range map[string]struct{ old, new, says string }{
		"nothing more":                  {"", "", "ip-10-1-1-4.ec2.internal"},
		"a name from a tag":             {fqdn, "fqdn: '{{ .Tag \"Name\" }}'\nfqdn_suffixes: [corp.example]", "tags:     Name=sample.corp.example, made up"},
		"a label from a tag":            {fqdn, "fqdn: '{{ .Tag \"Name\" }}.corp.example'\nfqdn_suffixes: [.corp.example]", "tags:     Name=sample, made up"},
		"the second suffix":             {fqdn, "fqdn: '{{ .Tag \"Name\" }}.b.example'\nfqdn_suffixes: [a.example, b.example]", "fqdn:     sample.b.example"},
		"a piped tag":                   {fqdn, "fqdn: '{{ .Tag \"Name\" | lower | trimSuffix \".x\" }}'\nfqdn_suffixes: [corp.example]", "Name=sample.corp.example"},
		"two tags":                      {fqdn, "fqdn: '{{ .Tag \"role\" }}-{{ $.Tag \"n\" }}.corp.example'\nfqdn_suffixes: [corp.example]", "n=sample, role=sample"},
		"a tag of match in the name":    {"match: {", "match: {tags: {Name: \"web-*\"}, ", "Name=web-sample"},
		"tags of a template":            {"lab/kv/{{ .InstanceID }}", `lab/kv/{{ .Tag "team" }}/{{ replace "a" "b" (.Tag "unit") }}`, "team=sample, unit=sample"},
		"a tag in a branch":             {"lab/kv/{{ .InstanceID }}", `lab/kv/{{ if eq .Region "us-east-1" }}{{ .Tag "team" }}{{ else }}{{ .Tag "unit" }}{{ end }}`, "team=sample, unit=sample"},
		"a tag inside a range":          {"lab/kv/{{ .InstanceID }}", `lab/kv/{{ range .IPv4s }}{{ . }}-{{ $.Tag "team" }}{{ end }}`, "team=sample"},
		"a tag whose key is a value":    {"lab/kv/{{ .InstanceID }}", `lab/kv/{{ .Tag .Region }}`, "us-east-1=sample"},
		"a tag with an empty pattern":   {"match: {", "match: {tags: {\"k8s.io/enabled\": \"*\"}, ", "k8s.io/enabled=sample"},
		"an IPv6 address":               {"lab/kv/{{ .InstanceID }}", `lab/kv/{{ index .IPv6s 0 }}`, "2001:db8::4"},
		"a region by a pattern":         {"match: {", "match: {regions: [\"eu-*\"], ", "eu-central-1.compute.internal"},
		"a region of another partition": {"match: {", "match: {regions: [\"cn-*\"], ", "cn-north-1"},
		"a VPC by a pattern":            {"match: {", "match: {vpc_ids: [\"vpc-0b*\"], ", "vpc-0b0a1b2c3d"},
		"the domain of a suffix":        {fqdn, fqdn + "\nfqdn_suffixes: [eu-central-1.compute.internal]", "ip-10-1-1-4.eu-central-1.compute.internal"},
		"a role of any account":         {`"arn:aws:iam::*:role/web"`, `"*"`, "role/sample"},
		"a role by its end":             {`"arn:aws:iam::*:role/web"`, `"*/web"`, "role/web"},
		"a role without the beginning":  {`"arn:aws:iam::*:role/web"`, `"*:role/web-*"`, "role/web-sample"},
		"a role of every partition":     {`"arn:aws:iam::*:role/web"`, `["arn:aws*:iam::*:role/web", "arn:aws*:iam::*:role/*/web"]`, `"arn:aws:iam::123456789012:role/web"`},
		"a role with a path":            {`"arn:aws:iam::*:role/web"`, `"arn:aws*:iam::*:role/*/web"`, "arn:aws:iam::123456789012:role/sample/web"},
		"a role of China":               {`"arn:aws:iam::*:role/web"`, `"arn:aws-cn:iam::*:role/web"`, "arn:aws-cn:iam::123456789012:role/web"},
		"a role of one account":         {`"arn:aws:iam::*:role/web"`, `"arn:aws:iam::111122223333:role/web"`, "arn:aws:iam::111122223333:role/web"},
		"an instance profile":           {`iam_role_arn: "arn:aws:iam::*:role/web"`, `iam_instance_profile_arn: "*:instance-profile/web-*"`, "instance-profile/web-sample"},
		"a login by iam":                {"auth: {", "auth: {type: iam, ", "inferred_entity_type"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			changed := false
			for file, text := range map[string]string{"profile.yaml": sampleProfile, "node.hcl.tmpl": samplePolicy, "web.json.tmpl": `{"max_ttl": "24h"}`} {
				if strings.Contains(text, row.old) {
					text, changed = strings.Replace(text, row.old, row.new, 1), true
				}
				if err := os.MkdirAll(filepath.Join(folder, "web"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(folder, "web", file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if !changed {
				t.Fatalf("no file has %q", row.old)
			}
			o := Defaults()
			o.Templates, o.Profile = folder, "lab-web"
			var out bytes.Buffer
			status, err := Run(t.Context(), o, &out)
			if err != nil || status != granted || !strings.Contains(out.String(), "auth-role") {
				t.Fatalf("want the made-up instance to match and be granted, got %d, %v:\n%s", status, err, out.String())
			}
			if !strings.Contains(out.String(), row.says) {
				t.Errorf("want %q in\n%s", row.says, out.String())
			}
		})
	}
}
