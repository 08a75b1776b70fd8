package integration

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const fieldsMount = "lab_fields/pki"

// roleWith returns the PKI role of a profile whose template has these fields beside max_ttl. It fails if the profile is refused.
func roleWith(fields string) (grant.Object, error) {
	set, err := grant.Load(fstest.MapFS{
		"w/profile.yaml": {Data: []byte(`{name: lab-fields, match: {iam_role_arn: "*"}, base_path: lab_fields, fqdn: a.lab.example,
			auth: {token_ttl: 1h, token_max_ttl: 24h}, outputs: [{name: web, type: pki-role, path: pki/roles, template: web.json.tmpl}]}`)},
		"w/web.json.tmpl": {Data: []byte(`{"max_ttl": "24h"` + fields + `}`)},
	})
	if err != nil {
		return grant.Object{}, err
	}
	g, err := set.Profiles[0].Render(facts.Instance{
		ID: "i-0123456789abcdef0", State: facts.Running, Account: "123456789012", Region: "us-east-1",
		IPv4s: []netip.Addr{netip.MustParseAddr("10.1.1.4")}, IAMRoleARN: "arn:aws:iam::123456789012:role/a",
	}, grant.Realm{Deployment: "lab", AuthMount: "aws"})
	if err != nil {
		return grant.Object{}, err
	}
	return g.Objects[0], nil
}

// answered is an answer of Vault to one request.
type answered struct {
	Data     map[string]any
	Warnings []string
	Errors   []string
}

func ask(t *testing.T, path string, fields map[string]any) (answered, bool) {
	t.Helper()
	status, body := send(t, world.Vault, request{path: path, body: text(t, fields)})
	var a answered
	if err := json.Unmarshal(body, &a); err != nil && len(body) > 0 {
		t.Fatalf("%s: %d %.200s: %v", path, status, body, err)
	}
	return a, status < 300
}

// issueBy writes a PKI role as the functions do and issues a certificate by it, or signs a request where Vault makes no key. The
// error says what Vault refuses, or drops from the role.
func issueBy(t *testing.T, role grant.Object) (*x509.Certificate, error) {
	t.Helper()
	written, ok := ask(t, role.Path, role.FieldsFor(nil))
	if !ok {
		return nil, fmt.Errorf("the write is refused: %s", written.Errors)
	}
	warnings := slices.DeleteFunc(written.Warnings, func(w string) bool {
		// Vault 1.21 says so of a hash of unknown length, and ignores it for keys of type ec.
		isOfHash := strings.HasSuffix(w, "incompatible with the set role signature bits, 224")
		return isOfHash || strings.HasPrefix(w, "it is encouraged to disable generate_lease")
	})
	if len(warnings) > 0 {
		return nil, fmt.Errorf("the write warns: %s", warnings)
	}
	stored := vaultRead(t, role.Path)
	if differs := role.Differences(stored); len(differs) > 0 {
		return nil, fmt.Errorf("the role reads back with other values of %s", differs)
	}
	if answer := text(t, written.Data); answer != text(t, stored) {
		t.Errorf("the write of %s answers %s and stores %s: the functions take the one for the other", role.Path, answer, text(t, stored))
	}
	_, name, _ := strings.Cut(role.Path, "/roles/")
	request := map[string]any{"common_name": "a.lab.example"}
	verb := "/issue/"
	if role.Fields["key_type"] == "any" {
		verb, request["csr"] = "/sign/", csr(t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.lab.example"}})
	}
	issued, ok := ask(t, fieldsMount+verb+name, request)
	if !ok {
		return nil, fmt.Errorf("no certificate is issued: %s", issued.Errors)
	}
	return certificate(t, fmt.Sprint(issued.Data["certificate"])), nil
}

// contents returns all of a certificate that a role's fields decide, and not its serial number, key and exact times.
func contents(c *x509.Certificate) string {
	bits := 0
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		bits = key.N.BitLen()
	case *ecdsa.PublicKey:
		bits = key.Params().BitSize
	}
	slices.Sort(c.ExtKeyUsage)
	return fmt.Sprint(c.PublicKeyAlgorithm, bits, c.SignatureAlgorithm, c.KeyUsage, c.ExtKeyUsage, c.UnknownExtKeyUsage, c.Policies,
		c.BasicConstraintsValid, c.Subject, c.NotAfter.Sub(c.NotBefore).Round(time.Hour))
}

// Each row that a profile refuses is one that the real Vault refuses, cannot issue by, or drops. Each row that a profile accepts is
// one that the real Vault takes and obeys.
func TestRoleFields_FollowVault(t *testing.T) {
	if serverOf(t).Product == vault.OpenBao {
		t.Skip("the rules are those of Vault's supported versions")
	}
	if err := world.Vault.Sys().MountWithContext(t.Context(), fieldsMount, &vaultapi.MountInput{Type: "pki", Config: vaultapi.MountConfigInput{MaxLeaseTTL: "8760h"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vaultDelete(t, "sys/mounts/"+fieldsMount) })
	if a, ok := ask(t, fieldsMount+"/root/generate/internal", map[string]any{"common_name": "lab", "ttl": "8000h", "issuer_name": "lab-root"}); !ok {
		t.Fatal(a.Errors)
	}
	if a, ok := ask(t, fieldsMount+"/root/generate/internal", map[string]any{"common_name": "lab-ed", "ttl": "8000h", "issuer_name": "lab-ed", "key_type": "ed25519"}); !ok {
		t.Fatal(a.Errors)
	}
	plain, err := roleWith("")
	if err != nil {
		t.Fatal(err)
	}

	// The named field is the bad one; the others are the rest of the template.
	for field, rows := range map[string][]string{
		"ttl":                 {`"ttl": "48h"`, `"ttl": 86401`},
		"key_type":            {`"key_type": "ecdsa"`, `"key_type": "EC"`, `"key_type": ""`, `"key_type": "dsa"`},
		"key_bits":            {`"key_bits": 1024`, `"key_bits": 256`, `"key_bits": 2049`, `"key_bits": 2048, "key_type": "ec"`, `"key_bits": 255, "key_type": "ec"`},
		"signature_bits":      {`"signature_bits": 224`, `"signature_bits": 1`, `"signature_bits": 2048`, `"signature_bits": 224, "key_type": "any"`, `"signature_bits": 1, "key_type": "ed25519"`},
		"key_usage":           {`"key_usage": ["DigitalSignature", "KeyAgreement", "KeyEncipherment", "KeyUsageCertSign"]`, `"key_usage": ["DigitalSignature", "KeyAgreement", "KeyEncipherment", "NonRepudiation"]`, `"key_usage": "DigitalSignature "`},
		"ext_key_usage":       {`"ext_key_usage": ["ExtKeyUsageTimeStamping"]`, `"ext_key_usage": ["MicrosoftCommercialCodeSigning"]`, `"ext_key_usage": ["1.3.6.1.5.5.7.3.8"]`},
		"ext_key_usage_oids":  {`"ext_key_usage_oids": ["serverAuth"]`, `"ext_key_usage_oids": ["1"]`, `"ext_key_usage_oids": ["1.40.1"]`, `"ext_key_usage_oids": ["3.2.1"]`, `"ext_key_usage_oids": ["1.3..6"]`, `"ext_key_usage_oids": ["1.3.6.1.4.1.2147483648"]`, `"ext_key_usage_oids": ["2.2147483568.1"]`},
		"policy_identifiers":  {`"policy_identifiers": ["gold"]`, `"policy_identifiers": ["1"]`, `"policy_identifiers": ["1.3.6.1.4.1.2147483648"]`, `"policy_identifiers": ["{\"cps\":\"x\"}"]`, `"policy_identifiers": ["{\"oid\":\"x\"}"]`, `"policy_identifiers": ["{}"]`},
		"generate_lease":      {`"generate_lease": true, "no_store": true`},
		"issuer_ref":          {`"issuer_ref": "lab root"`, `"issuer_ref": ""`, `"issuer_ref": "-lab"`},
		"organization":        {`"organization": [" nodes"]`, `"organization": ["nodes "]`},
		"not_before_duration": {`"not_before_duration": 10000000000`},
	} {
		for _, row := range rows {
			_, refusal := roleWith(", " + row)
			if refusal == nil || !strings.Contains(refusal.Error(), "w/web.json.tmpl:1: ") {
				t.Errorf("%s: want the profile refused, with file and line, got %v", row, refusal)
			}
			role := plain
			role.Fields = maps.Clone(plain.Fields)
			given := map[string]any{}
			if err := json.Unmarshal([]byte("{"+row+"}"), &given); err != nil {
				t.Fatal(err)
			}
			maps.Copy(role.Fields, given)
			with, err := issueBy(t, role)
			if err == nil {
				role.Fields[field] = plain.Fields[field]
				without, errWithout := issueBy(t, role)
				if errWithout != nil {
					t.Fatalf("%s without %s: %v", row, field, errWithout)
				}
				if contents(with) == contents(without) {
					err = errors.New("the certificate is the same without it")
				}
			}
			if err == nil {
				t.Errorf("%s: a profile with it is refused (%v), and Vault obeys it", row, refusal)
			}
			t.Logf("%-70s %v", row, err)
		}
	}

	for _, row := range acceptedFields {
		role, err := roleWith(", " + row)
		if err != nil {
			t.Errorf("%s: want the profile accepted, got %v", row, err)
			continue
		}
		if _, err := issueBy(t, role); err != nil {
			t.Errorf("%s: a profile with it is accepted, and Vault does not take it: %v", row, err)
		}
	}

	bare, err := issueBy(t, plain)
	if err != nil {
		t.Fatal(err)
	}
	for field, names := range map[string][]string{
		"key_usage":     {"ContentCommitment", "DataEncipherment", "CertSign", "crlsign", "EncipherOnly", "DecipherOnly"},
		"ext_key_usage": {"Any", "codesigning", "EmailProtection", "IPSECEndSystem", "IPSECTunnel", "IPSECUser", "TimeStamping", "OCSPSigning", "MicrosoftServerGatedCrypto", "NetscapeServerGatedCrypto"},
	} {
		for _, name := range names {
			role, err := roleWith(fmt.Sprintf(", %q: [%q]", field, name))
			if err != nil {
				t.Errorf("%s %s: want the profile accepted, got %v", field, name, err)
				continue
			}
			if cert, err := issueBy(t, role); err != nil || contents(cert) == contents(bare) {
				t.Errorf("%s %s: want a certificate with this usage, got one without it (%v): the profile must be refused", field, name, err)
			}
		}
	}
}

// acceptedFields are fields that a profile may have.
var acceptedFields = []string{
	`"ttl": "24h"`, `"ttl": 3600`, `"key_bits": 2048`, `"key_bits": 3072`, `"key_bits": 4096`, `"key_type": "ec"`,
	`"key_type": "ec", "key_bits": 224`, `"key_type": "ec", "key_bits": 256`, `"key_type": "ec", "key_bits": 384`, `"key_type": "ec", "key_bits": 521`,
	`"key_type": "ed25519"`, `"key_type": "any"`, `"signature_bits": 256`, `"signature_bits": 384`, `"signature_bits": 512, "use_pss": true`,
	// Vault stores these lengths and issues without them: roles from before 1.10 have key_bits 2048.
	`"key_type": "any", "key_bits": 2048`, `"key_type": "any", "key_bits": 1`, `"key_type": "ed25519", "key_bits": 256`,
	// Vault keeps or drops these hashes, by its version and the issuer's key.
	`"key_type": "any", "signature_bits": 256`, `"key_type": "any", "signature_bits": 512`, `"key_type": "ed25519", "signature_bits": 384`,
	`"key_type": "ec", "signature_bits": 224`, `"key_type": "ec", "signature_bits": 512`,
	`"issuer_ref": "lab-ed", "signature_bits": 256`, `"issuer_ref": "lab-ed", "key_type": "ec", "signature_bits": 384`, `"issuer_ref": "lab-ed", "key_type": "any", "signature_bits": 512`,
	`"key_usage": []`, `"key_usage": "DigitalSignature"`, `"key_usage": ["digitalsignature", "KEYAGREEMENT"]`, `"server_flag": false, "ext_key_usage": ["ServerAuth", "ClientAuth"]`,
	`"ext_key_usage_oids": ["1.3.6.1.5.5.7.3.17", "2.99.3", "0.39.1", "1.3.6.1.4.1.2147483647", "2.2147483567.1"]`,
	`"policy_identifiers": ["1.3.6.1.4.1.1.2"]`, `"policy_identifiers": ["{\"oid\":\"1.3.6.1.4.1.7.8\"}"]`,
	`"no_store": true`, `"generate_lease": true`, `"issuer_ref": "lab-root"`, `"issuer_ref": "default"`, `"not_before_duration": "10s"`, `"not_before_duration": 0`,
	`"organization": "system:nodes", "ou": ["a", "b"], "country": ["DE"], "province": ["x y"]`, `"basic_constraints_valid_for_non_ca": true`,
}

// Each policy that a profile refuses as text is one that the real Vault refuses, and the reverse.
func TestPolicyText_FollowsVault(t *testing.T) {
	const path = "sys/policies/acl/lab-policy-text"
	t.Cleanup(func() { vaultDelete(t, path) })
	for block, want := range map[string]bool{
		`capabilities = ["read"]`: true,
		`capabilities = ["create", "update", "patch", "delete", "list"]`:                  true,
		`capabilities = ["update"] min_wrapping_ttl = "1m" max_wrapping_ttl = 3600`:       true,
		`capabilities = ["update"] min_wrapping_ttl = "2d" max_wrapping_ttl = "172800"`:   true,
		`capabilities = ["update"] max_wrapping_ttl = "90s"`:                              true,
		`capabilities = ["update"] min_wrapping_ttl = "1h" max_wrapping_ttl = "5m"`:       false,
		`capabilities = ["update"] min_wrapping_ttl = "soon"`:                             false,
		`capabilities = ["update"] max_wrapping_ttl = ["1h"]`:                             false,
		`capabilities = ["update"] max_wrapping_ttl = true`:                               false,
		`capabilities = ["update"] max_wrapping_ttl = "1h30"`:                             false,
		`capabilities = ["update"] max_wrapping_ttl = "1.5d"`:                             false,
		`capabilities = ["update"] min_wrapping_ttl = "" max_wrapping_ttl = 1.5`:          true,
		`capabilities = ["update"] min_wrapping_ttl = "90" max_wrapping_ttl = ""`:         true,
		`capabilities = ["update"] min_wrapping_ttl = "1.5h" max_wrapping_ttl = 2e4`:      true,
		`capabilities = ["update"] min_wrapping_ttl = 0x10`:                               true,
		`capabilities = ["write"]`:                                                        false,
		`capabilities = ["Read"]`:                                                         false,
		`capabilities = "read" "list"`:                                                    false,
		`capability = ["read"]`:                                                           false,
		`capabilities = ["update"] allowed_parameters = ["a"]`:                            false,
		`capabilities = ["update"] allowed_parameters = { "a" = "b" }`:                    false,
		`capabilities = ["update"] allowed_parameters = { "a" = ["b", ["c"]], "d" = [] }`: true,
	} {
		block = strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(block, "] m", "]\nm"), `" max`, "\"\nmax"), "] allowed", "]\nallowed")
		for _, of := range []string{"lab_fields/kv/x", "auth/token/renew-self"} {
			if of != "lab_fields/kv/x" && !strings.Contains(block, "wrapping") {
				continue
			}
			policy := "path \"" + of + "\" { " + block + " }"
			_, err := grant.Load(fstest.MapFS{
				"w/profile.yaml": {Data: []byte(`{name: lab-fields, match: {iam_role_arn: "*"}, base_path: lab_fields, fqdn: a.lab.example,
				auth: {token_ttl: 1h, token_max_ttl: 24h}, outputs: [{name: node, type: policy, template: node.hcl.tmpl}]}`)},
				"w/node.hcl.tmpl": {Data: []byte(policy)},
			})
			status, body := send(t, world.Vault, request{path: path, body: text(t, map[string]any{"policy": policy})})
			if (err == nil) != want || (status < 300) != want {
				t.Errorf("%s: want both to accept it: %v; the profile: %v; Vault: %d %.200s", policy, want, err, status, body)
			}
		}
	}
}

// The functions do not read a policy back. Vault keeps each text as it was sent, or refuses it.
func TestPolicyText_IsStoredAsSent(t *testing.T) {
	const path = "sys/policies/acl/lab-policy-stored"
	t.Cleanup(func() { vaultDelete(t, path) })
	block := `path "lab_fields/kv/x" { capabilities = ["read"] }`
	for name, policy := range map[string]string{
		"plain": block, "a newline at the end": block + "\n", "spaces around": "  \n" + block + " \n\n", "carriage returns": "# a\r\n" + block + "\r\n",
		"letters beyond ASCII": "# größer – 日本\n" + block, "JSON": `{"path": {"lab_fields/kv/x": {"capabilities": ["read"]}}}`,
		"a comment of base64": "# cGF0aA==\n" + block, "many paths": strings.Repeat(block+"\n", 500), "tabs": "\t" + block + "\t",
	} {
		vaultWrite(t, path, map[string]any{"policy": policy})
		if got := vaultRead(t, path)["policy"]; got != policy {
			t.Errorf("%s: sent %.200q, stored %.200q", name, policy, got)
		}
	}
	for _, broken := range []string{"", "path", base64.StdEncoding.EncodeToString([]byte("x"))} {
		if status, _ := send(t, world.Vault, request{path: path, body: text(t, map[string]any{"policy": broken})}); status < 300 {
			t.Errorf("want the text %q refused, got %d", broken, status)
		}
	}
}
