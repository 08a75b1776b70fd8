package grant_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// TestRoleFields_FollowVault in infra/lab/integration compares the rules with a real Vault.
func TestRoleFields_AreRefusedByFileAndLine(t *testing.T) {
	for name, row := range map[string]struct{ field, says string }{
		"a ttl past max_ttl":             {`"ttl": "48h"`, "ttl is 48h0m0s, longer than max_ttl (24h0m0s), which Vault refuses: shorten it"},
		"an unknown key type":            {`"key_type": "ecdsa"`, `key_type: "ecdsa" is unknown to Vault: write one of any, ec, ed25519, rsa`},
		"a weak key":                     {`"key_bits": 1024`, "Vault makes no rsa key of 1024 bits: write one of 2048, 3072, 4096, 8192"},
		"bits of another type":           {`"key_bits": 2048, "key_type": "ec"`, "Vault makes no ec key of 2048 bits: write one of 224, 256, 384, 521"},
		"a hash that Vault lacks":        {`"signature_bits": 224`, "write one of 256, 384, 512"},
		"such a hash for any key":        {`"signature_bits": 224, "key_type": "any"`, "write one of 256, 384, 512"},
		"an unknown usage":               {`"key_usage": ["DigitalSignature", "KeyUsageKeyAgreement"]`, `key_usage: "KeyUsageKeyAgreement" is unknown to Vault, which leaves it out of certificates: write one of DigitalSignature`},
		"an unknown extended usage":      {`"ext_key_usage": "MicrosoftKernelCodeSigning"`, "ext_key_usage: "},
		"text as an OID":                 {`"ext_key_usage_oids": ["serverAuth"]`, "as in 1.3.6.1.5.5.7.3.1"},
		"an OID that no certificate has": {`"ext_key_usage_oids": ["1.40.1"]`, `the OID "1.40.1"`},
		"an OID with a large number":     {`"ext_key_usage_oids": ["1.3.6.1.4.1.2147483648"]`, "each below 2^31"},
		"a policy that is no OID":        {`"policy_identifiers": ["gold"]`, `the OID "gold"`},
		"a policy object without OID":    {`"policy_identifiers": ["{\"cps\":\"x\"}"]`, "policy_identifiers: "},
		"a lease without storage":        {`"no_store": true, "generate_lease": true`, "generate_lease: Vault drops it"},
		"an issuer with a space":         {`"issuer_ref": "my issuer"`, "no name or ID of an issuer"},
		"an empty issuer":                {`"issuer_ref": ""`, "leave it out for the default one"},
		"a space at an end":              {`"organization": ["system:nodes "]`, `"system:nodes " begins or ends with a space`},
		"a duration beyond Vault's":      {`"not_before_duration": 10000000000`, "longer than Vault counts"},
		"a field twice":                  {`"max_ttl": "1h"`, `the field "max_ttl" appears twice`},
	} {
		t.Run(name, func(t *testing.T) {
			role := "{\n  \"max_ttl\": \"24h\",\n  " + row.field + "\n}\n"
			wantFault(t, filesWith(text("worker/kubelet.json.tmpl", role)), "worker/kubelet.json.tmpl:3: ", row.says)
			// The functions keep the profile and its grants.
			if set, err := grant.LoadDeployed(filesWith(text("worker/kubelet.json.tmpl", role)), grant.DefaultRules()); err != nil || set.Profiles[0].Barred == nil {
				t.Errorf("want the profile loaded and barred, got %v", err)
			}
		})
	}
}

func TestRoleFields_ReportsEveryFaultAtOnce(t *testing.T) {
	wantFault(t, filesWith(text("worker/kubelet.json.tmpl", "{\n\"ttl\": \"2h\",\n\"key_bits\": 1,\n\"key_usage\": [\"x\"]\n}")),
		"tmpl:1: max_ttl is required", "tmpl:3: key_bits", "tmpl:4: key_usage")
}

// A value that only the instance decides is checked when it is rendered.
func TestRoleFields_AreCheckedWithTheInstancesValues(t *testing.T) {
	for name, row := range map[string]struct {
		role func(fstest.MapFS)
		says string
	}{
		"a good branch":      {text("worker/kubelet.json.tmpl", "{\"max_ttl\": \"24h\",\n\"key_bits\": {{ if eq .InstanceType \"m5.large\" }}4096{{ else }}2048{{ end }}}"), ""},
		"a branch with bits": {text("worker/kubelet.json.tmpl", "{\"max_ttl\": \"24h\",\n\"key_bits\": {{ if eq .Region \"eu-west-1\" }}1024{{ else }}2048{{ end }}}"), "worker/kubelet.json.tmpl:2: key_bits"},
		"a value as a usage": {text("worker/kubelet.json.tmpl", "{\"max_ttl\": \"24h\",\n\"ext_key_usage_oids\": [\"1.3.6.1.4.1.{{ .AccountID }}\"]}"), "worker/kubelet.json.tmpl:2: ext_key_usage_oids"},
	} {
		f := baseline()
		f.Region, f.AvailabilityZone = "eu-west-1", "eu-west-1a"
		_, err := render(t, filesWith(row.role), f)
		isRefused := err != nil && fault.KindOf(err) == fault.Refuse && strings.Contains(err.Error(), row.says)
		if (row.says == "" && err != nil) || (row.says != "" && !isRefused) {
			t.Errorf("%s: want a refusal that says %q, got %v: Vault would be asked for it at each retry", name, row.says, err)
		}
	}
}

func TestPolicy_WrappingTTLsAreChecked(t *testing.T) {
	const node, own = "alice_cluster/kv/x", "auth/token/renew-self"
	for ttls, says := range map[string]string{
		`min_wrapping_ttl = "1h" max_wrapping_ttl = "5m"`: "max_wrapping_ttl is 5m0s, shorter than min_wrapping_ttl (1h0m0s)",
		`min_wrapping_ttl = "2d" max_wrapping_ttl = 300`:  "max_wrapping_ttl is 5m0s, shorter than min_wrapping_ttl (48h0m0s)",
		`min_wrapping_ttl = "soon"`:                       "min_wrapping_ttl: soon is no duration",
		`max_wrapping_ttl = ["1h"]`:                       "max_wrapping_ttl: [1h] is no duration",
		`max_wrapping_ttl = true`:                         "max_wrapping_ttl: true is no duration",
		`max_wrapping_ttl = 9999999999999`:                "max_wrapping_ttl: 9999999999999 is longer than Vault counts",
		`max_wrapping_ttl = "9223372037"`:                 "max_wrapping_ttl: 9223372037 is longer than Vault counts",
		`min_wrapping_ttl = "106752d"`:                    "min_wrapping_ttl: 106752d is longer than Vault counts",
		`min_wrapping_ttl = 1e30`:                         "min_wrapping_ttl: 1e+30 is longer than Vault counts",
		`min_wrapping_ttl = "-5m"`:                        "min_wrapping_ttl: -5m is less than 0",
		`max_wrapping_ttl = -1`:                           "max_wrapping_ttl: -1 is less than 0",
		`max_wrapping_ttl = "9223372036"`:                 "",
		`min_wrapping_ttl = "" max_wrapping_ttl = 1.5`:    "",
		`min_wrapping_ttl = 0 max_wrapping_ttl = "1.5h"`:  "",
		`min_wrapping_ttl = "300" max_wrapping_ttl = 300`: "",
		`max_wrapping_ttl = "1h"`:                         "",
	} {
		for _, path := range []string{node, own} {
			policy := "\n" + fmt.Sprintf(`path %q { capabilities = ["update"] %s }`, path, strings.ReplaceAll(ttls, " max_", "\nmax_"))
			_, err := grant.Load(filesWith(text("worker/policy.hcl.tmpl", policy)))
			if (says == "" && err != nil) || (says != "" && !strings.Contains(fmt.Sprint(err), fmt.Sprintf("worker/policy.hcl.tmpl:2: path %q: %s", path, says))) {
				t.Errorf("%s: %s: want an error that says %q, got %v", path, ttls, says, err)
			}
		}
	}
}
