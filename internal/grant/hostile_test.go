package grant_test

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// hostile are values that an attacker may try who can tag or launch instances, but not grant access.
var hostile = map[string]string{
	"a quote":                       `a"b`,
	"a closed string and a block":   `x" { capabilities = ["sudo"] } path "*`,
	"a brace":                       "a}b",
	"a closed block":                "x\" {}\n} path \"sys/*\" { capabilities = [\"root\"] }",
	"a newline":                     "a\nb",
	"a carriage return":             "a\rb",
	"a line separator":              "a\u2028b",
	"an HCL comment":                "a # b",
	"a block comment":               "a /* b */",
	"a heredoc":                     "<<EOF\nx\nEOF",
	"an interpolation":              "${x}",
	"a template mark":               "{{ .FQDN }}",
	"Vault's template mark":         "{{identity.entity.id}}",
	"an escaped template mark":      `\x7b\x7bidentity.entity.id\x7d\x7d`,
	"a backslash":                   `a\b`,
	"a null byte":                   "a\x00b",
	"a right-to-left override":      "a\u202eb",
	"a zero-width space":            "a\u200bb",
	"a zero-width joiner":           "a\u200db",
	"a byte order mark":             "\ufeffa",
	"a letter that looks like an a": "\u0430dmin",
	"a broken rune":                 "a\xffb",
	"4 kB":                          strings.Repeat("a", 4096),
	"a glob":                        "*",
	"a glob at the end":             "a*",
	"a comma":                       "a,b",
	"a JSON fragment":               `","allow_any_name":true,"x":"`,
	"a JSON object":                 `{"a":1}`,
	"a semicolon":                   "a;b",
	"a percent escape":              "a%2fb",
	"a backtick":                    "a`b",
}

// Each hostile value is tried as each value that a template can use, in a policy's path and in JSON. None is rendered. The error
// names the instance, and has the value with its invisible characters escaped.
func TestRender_RefusesHostileValues(t *testing.T) {
	type source struct {
		use string // in a template
		set func(*facts.Instance, string)
	}
	sources := map[string]source{"tag": {`.Tag "team"`, func(f *facts.Instance, v string) { f.Tags["team"] = v }}}
	fields := map[string]string{
		"AvailabilityZone": "AvailabilityZone", "VPCID": "VPCID", "SubnetID": "SubnetID", "ImageID": "ImageID", "Type": "InstanceType",
		"PrivateDNSName": "PrivateDNSName", "IAMInstanceProfileARN": "IAMInstanceProfileARN", "IAMRoleARN": "IAMRoleARN",
		"Account": "AccountID", "Region": "Region",
	}
	kind := reflect.TypeFor[facts.Instance]()
	for i := range kind.NumField() {
		name := kind.Field(i).Name
		if kind.Field(i).Type.Kind() != reflect.String || name == "ID" || name == "State" {
			continue // the error names the ID; an event with an ID of another form is refused before
		}
		if fields[name] == "" {
			t.Fatalf("the fact %s is missing in this test: add it", name)
		}
		sources[name] = source{"." + fields[name], func(f *facts.Instance, v string) { reflect.ValueOf(f).Elem().FieldByName(name).SetString(v) }}
	}
	attempts := 0
	for from, s := range sources {
		for what, value := range hostile {
			for place, file := range map[string]string{"a policy's path": "worker/policy.hcl.tmpl", "JSON": "worker/host.json.tmpl"} {
				attempts++
				old := "{{ .InstanceID }}"
				if place == "JSON" {
					old = "{{ .FQDN }}"
				}
				fs := filesWith(replace(file, old, "{{ "+s.use+" }}"),
					replace("worker/profile.yaml", `iam_role_arn: "arn:aws:iam::*:role/alice-worker"`, `iam_instance_profile_arn: "*"`))
				if from == "IAMInstanceProfileARN" {
					replace("worker/profile.yaml", `iam_instance_profile_arn`, `iam_role_arn`)(fs)
				}
				f := baseline()
				s.set(&f, value)
				refusedNaming(t, fs, f, fmt.Sprintf("%s as %s in %s", what, from, place), value)
			}
		}
	}
	t.Logf("%d attempts: %d values through %d sources in 2 places", attempts, len(hostile), len(sources))
}

func refusedNaming(t *testing.T, fs fstest.MapFS, f facts.Instance, what, value string) {
	t.Helper()
	g, err := render(t, fs, f)
	if err == nil {
		t.Errorf("%s was rendered: %v", what, g.Objects[0].Fields["policy"])
		return
	}
	if fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), f.ID) {
		t.Errorf("%s: want a refusal that names the instance, got %v", what, err)
	}
	shown := strconv.QuoteToASCII(value)
	if len(value) <= 256 && !strings.Contains(err.Error(), shown) {
		t.Errorf("%s: want the value escaped, as %s, got %v", what, shown, err)
	}
	for _, r := range err.Error() {
		if r > 0x7e || r < 0x20 {
			t.Errorf("%s: the error has %+q unescaped: %+q", what, r, err)
			return
		}
	}
}
