package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var module = filepath.Join(root, "infra", "vault", "terraform")

// write is one object as Vault receives it.
type write struct {
	path   string
	fields map[string]any
}

// kinds describe the writes of the provider's resources: path with attributes in braces, rename with the names of attributes
// that differ in Vault's API, and always with the fields that the provider sends even if the module does not set them, and
// their values. Attributes in the path are not fields.
// https://github.com/hashicorp/terraform-provider-vault/blob/main/vault/resource_aws_auth_backend_client.go
// https://registry.terraform.io/providers/hashicorp/vault/latest/docs
var kinds = map[string]struct {
	path   string
	rename map[string]string
	always map[string]any
}{
	"vault_auth_backend": {path: "sys/auth/{path}"},
	"vault_aws_auth_backend_client": {
		path: "auth/{backend}/config/client", rename: map[string]string{"ec2_endpoint": "endpoint"},
		always: map[string]any{
			"endpoint": "", "iam_endpoint": "", "sts_endpoint": "", "sts_region": "", "iam_server_id_header_value": "",
			"use_sts_region_from_client": false, "max_retries": -1.0, "allowed_sts_header_values": []any{},
		},
	},
	"vault_aws_auth_backend_config_identity": {path: "auth/{backend}/config/identity"},
	"vault_aws_auth_backend_sts_role":        {path: "auth/{backend}/config/sts/{account_id}"},
	"vault_aws_auth_backend_cert":            {path: "auth/{backend}/config/certificate/{cert_name}"},
	"vault_policy":                           {path: "sys/policies/acl/{name}"},
	"vault_aws_auth_backend_role": {
		path: "auth/{backend}/role/{role}", rename: map[string]string{"bound_iam_principal_arns": "bound_iam_principal_arn"},
	},
	"vault_mount":                        {path: "sys/mounts/{path}", rename: map[string]string{"max_lease_ttl_seconds": "max_lease_ttl"}},
	"vault_pki_secret_backend_root_cert": {path: "{backend}/root/generate/{type}"},
	"vault_ssh_secret_backend_ca":        {path: "{backend}/config/ca"},
}

// asWrite returns a resource as the provider writes it.
func asWrite(t *testing.T, r resource) write {
	t.Helper()
	kind, known := kinds[r.kind]
	if !known {
		t.Fatalf("kinds has no entry for %s", r.kind)
	}
	out := write{path: kind.path, fields: map[string]any{}}
	maps.Copy(out.fields, kind.always)
	for name, value := range r.attributes {
		if hole := "{" + name + "}"; strings.Contains(out.path, hole) {
			out.path = strings.ReplaceAll(out.path, hole, fmt.Sprint(value))
			continue
		}
		if value == nil {
			continue
		}
		if other := kind.rename[name]; other != "" {
			name = other
		}
		out.fields[name] = value
	}
	if strings.Contains(out.path, "{") {
		t.Fatalf("%s: an attribute is missing for %s", r.kind, out.path)
	}
	return out
}

// commandWrites returns the command's writes, with the fields of a nested config moved to the top level.
func commandWrites(t *testing.T, w *world) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	for _, c := range w.tap.Calls() {
		path, is := strings.CutPrefix(c.Action, "PUT ")
		if !is {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal(c.Body, &fields); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		config, _ := fields["config"].(map[string]any)
		maps.Copy(fields, config)
		delete(fields, "config")
		if fields["max_lease_ttl"] == "87600h" {
			fields["max_lease_ttl"] = float64(87600 * 3600)
		}
		out[path] = fields
	}
	return out
}

// isNothing reports whether a field has the value of a new object.
func isNothing(v any) bool {
	list, isList := v.([]any)
	return v == nil || v == "" || v == 0.0 || v == false || isList && len(list) == 0
}

// The command runs against a real Vault. Its writes are compared with the module's resources, evaluated with the same options.
func TestTerraform_WritesTheSameAsTheCommand(t *testing.T) {
	dir, extended := profiles(t), sharing(t, profiles(t))
	signed := newSigned(t)
	roles := map[string]any{"provision": "arn:aws:iam::1:role/p", "deprovision": "arn:aws:iam::1:role/d", "reconcile": "arn:aws:iam::1:role/r"}
	builtIn := filepath.Join(root, "templates")
	for name, row := range map[string]struct {
		args      []string
		variables map[string]any
	}{
		"the least": {
			[]string{"-resolve-unique-ids=false", "-templates-dir", builtIn}, map[string]any{"resolve_unique_ids": false, "templates_dir": builtIn, "set_alias": true},
		},
		"as docs/deploying.md has it": {
			[]string{
				"-templates-dir", builtIn, "-resolve-unique-ids=false", "-server-id", "vault.example.com", "-sts-region", "eu-central-1", "-function-role", "provision=arn:aws:iam::1:role/p",
				"-function-role", "deprovision=arn:aws:iam::1:role/d", "-function-role", "reconcile=arn:aws:iam::1:role/r",
			},
			map[string]any{
				"templates_dir": builtIn, "resolve_unique_ids": false, "server_id": "vault.example.com", "sts_region": "eu-central-1", "set_alias": true,
				"function_roles": roles,
			},
		},
		"profiles that extend others": {
			[]string{"-templates-dir", extended, "-resolve-unique-ids=false", "-pki", "-deployment", "one"},
			map[string]any{"templates_dir": extended, "resolve_unique_ids": false, "set_alias": true, "pki": true, "deployment": "one"},
		},
		"everything": {
			[]string{
				"-templates-dir", dir, "-auth-mount", "instances", "-login-mount", "functions", "-role-prefix", "try", "-server-id", "one",
				"-sts-region", "eu-central-1", "-aws-endpoint", "http://127.0.0.1:1", "-aws-keys", "-resolve-unique-ids=false",
				"-sts-role", "111122223333=arn:aws:iam::111122223333:role/v", "-sts-role", "1=arn:aws:iam::1:role/v", "-sts-external-id", "stack", "-certificate", "xx-new-1=" + signed.file, "-also-path", "old/pki/roles",
				"-also-path", "bob/ssh/machines", "-also-auth-mount", "old", "-set-alias", "-revoke-certificates", "-revoke-stored-certificates", "-pki", "-deployment", "one",
				"-function-role", "provision=arn:aws:iam::1:role/p", "-function-role", "deprovision=arn:aws:iam::1:role/d", "-function-role", "reconcile=arn:aws:iam::1:role/r",
			},
			map[string]any{
				"templates_dir": dir, "auth_mount": "instances", "login_mount": "functions", "role_prefix": "try", "server_id": "one",
				"sts_region": "eu-central-1", "aws_endpoint": "http://127.0.0.1:1", "resolve_unique_ids": false,
				"aws_keys":  map[string]any{"access_key": "AKIDEXAMPLE", "secret_key": "secret"},
				"sts_roles": map[string]any{"111122223333": "arn:aws:iam::111122223333:role/v", "1": "arn:aws:iam::1:role/v"}, "sts_external_id": "stack", "certificates": map[string]any{"xx-new-1": signed.pem},
				"also_paths": []any{"old/pki/roles", "bob/ssh/machines"}, "also_auth_mounts": []any{"old"}, "set_alias": true,
				"revoke_certificates": true, "revoke_stored_certificates": true, "pki": true, "deployment": "one", "function_roles": roles,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			if out, err := w.run(t, w.token, row.args...); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			command := commandWrites(t, w)
			var paths []string
			for _, r := range evaluate(t, module, row.variables) {
				terraform := asWrite(t, r)
				paths = append(paths, terraform.path)
				compare(t, terraform, command[terraform.path], kinds[r.kind].always)
			}
			slices.Sort(paths)
			if want := slices.Sorted(maps.Keys(command)); !slices.Equal(paths, want) {
				t.Errorf("the module writes\n%q, the command\n%q", paths, want)
			}
		})
	}
}

// compare compares a write of the module with the command's. An empty value is a write too: it clears a field of an imported
// object, which the command leaves. Only the fields that the provider always sends may do that, and docs/deploying.md lists
// them.
func compare(t *testing.T, terraform write, command, always map[string]any) {
	t.Helper()
	for field, value := range terraform.fields {
		theirs, is := command[field]
		unsaid, sent := always[field]
		if !is && sent && reflect.DeepEqual(value, unsaid) || is && isNothing(value) && isNothing(theirs) {
			continue
		}
		if !is || !reflect.DeepEqual(value, theirs) {
			t.Errorf("%s: %s is %#v by the module, %#v by the command (written: %v)", terraform.path, field, value, theirs, is)
		}
	}
	for field, value := range command {
		if _, is := terraform.fields[field]; !is && !isNothing(value) {
			t.Errorf("%s: the command writes %s: %v, the module does not", terraform.path, field, value)
		}
	}
}

func TestTerraform_LossesOnImportAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "deploying.md"))
	if err != nil {
		t.Fatal(err)
	}
	for kind, k := range kinds {
		for field := range k.always {
			if !strings.Contains(string(page), "`"+field+"`") {
				t.Errorf("%s always sends %s, which an imported mount loses, and docs/deploying.md does not say so", kind, field)
			}
		}
	}
}

// Vault checks a login at sts_endpoint, and the functions sign for their region's own. The provider accepts sts_endpoint and
// sts_region only together.
func TestSetup_PointsVaultAtRegionalSTS(t *testing.T) {
	w := start(t)
	for region, want := range map[string]string{
		"eu-central-1": "https://sts.eu-central-1.amazonaws.com", "us-gov-west-1": "https://sts.us-gov-west-1.amazonaws.com",
		"cn-north-1": "https://sts.cn-north-1.amazonaws.com.cn", "eusc-de-east-1": "https://sts.eusc-de-east-1.amazonaws.eu",
		"us-iso-east-1": "https://sts.us-iso-east-1.c2s.ic.gov", "us-isob-east-1": "https://sts.us-isob-east-1.sc2s.sgov.gov",
		"us-isof-south-1": "https://sts.us-isof-south-1.csp.hci.ic.gov", "eu-isoe-west-1": "https://sts.eu-isoe-west-1.cloud.adc-e.uk",
	} {
		if out, err := w.run(t, w.token, "-sts-region", region); err != nil {
			t.Fatalf("%s: %v\n%s", region, err, out)
		}
		written := commandWrites(t, w)["auth/aws/config/client"]
		for _, r := range evaluate(t, module, map[string]any{"sts_region": region}) {
			if r.kind == "vault_aws_auth_backend_client" {
				compare(t, asWrite(t, r), written, kinds[r.kind].always)
			}
		}
		if written["sts_endpoint"] != want || written["sts_region"] != region {
			t.Errorf("%s: Vault is set to call %v of %v, want %s", region, written["sts_endpoint"], written["sts_region"], want)
		}
	}
	for _, given := range []map[string]any{{}, {"server_id": "one"}, {"aws_endpoint": "http://127.0.0.1:1", "sts_region": "eu-central-1"}} {
		for _, r := range evaluate(t, module, given) {
			if r.kind != "vault_aws_auth_backend_client" {
				continue
			}
			if fields := asWrite(t, r).fields; isNothing(fields["sts_endpoint"]) != isNothing(fields["sts_region"]) {
				t.Errorf("with %v the provider refuses sts_endpoint %v with sts_region %v", given, fields["sts_endpoint"], fields["sts_region"])
			}
		}
	}
}

// Another alias makes new entities for all clients of the mount.
func TestSetup_KeepsAliasesOfExistingMount(t *testing.T) {
	w := start(t)
	if _, err := w.vault.Logical().WriteWithContext(t.Context(), "sys/auth/aws", map[string]any{"type": "aws"}); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		args      []string
		variables map[string]any
		want      bool
	}{
		"without the setting": {nil, map[string]any{}, false},
		"with the setting":    {[]string{"-set-alias"}, map[string]any{"set_alias": true}, true},
	} {
		if out, err := w.run(t, w.token, append(row.args, "-dry-run")...); err != nil || strings.Contains(out, "update  auth/aws/config/identity") != row.want {
			t.Errorf("%s: want the command to write the aliases: %v; %v\n%s", name, row.want, err, out)
		}
		module := slices.ContainsFunc(evaluate(t, module, row.variables), func(r resource) bool { return r.kind == "vault_aws_auth_backend_config_identity" })
		if module != row.want {
			t.Errorf("%s: the module writes the aliases: %v, want %v", name, module, row.want)
		}
	}
}

// Each feature of the command is in the module too.
func TestTerraform_HasVariableForEachFlag(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(root, "infra", "vault-ec2", "setup.go"))
	if err != nil {
		t.Fatal(err)
	}
	otherwise := map[string]string{
		"function-role": "function_roles", "sts-role": "sts_roles", "certificate": "certificates", "also-path": "also_paths", "also-auth-mount": "also_auth_mounts",
		"dry-run": "", "print-policy": "", // terraform plan; the provider's own token
		"stack":      "", // Terraform reads a stack's outputs itself
		"keep-alias": "", // the module does not check the aliases of a mount
	}
	declared := variables(t, module)
	delete(declared, "function_account") // the command reads it from the role's ARN, which Terraform may not know yet
	for _, flag := range flagNames(t, string(source)) {
		name, other := otherwise[flag]
		if !other {
			name = strings.ReplaceAll(flag, "-", "_")
		}
		if name == "" {
			continue
		}
		if _, is := declared[name]; !is {
			t.Errorf("the flag --%s has no variable %s", flag, name)
		}
		delete(declared, name)
	}
	for name := range declared {
		t.Errorf("the variable %s corresponds to no flag", name)
	}
}

// Compares the tests' own evaluation with Terraform's, for everything that needs no provider.
func TestTerraform_EvaluatesToTheSamePolicies(t *testing.T) {
	run := terraform(t, "variables.tf", "rights.tf")
	dir := profiles(t)
	out, err := run(`jsonencode(local.policies)`+"\n", "console", "-no-color", "-var", "templates_dir="+dir, "-var", "revoke_certificates=true", "-var", "revoke_stored_certificates=true", "-var", `also_auth_mounts=["old"]`)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var text string
	var theirs map[string]string
	if err := errors.Join(json.Unmarshal([]byte(out), &text), json.Unmarshal([]byte(text), &theirs)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ours := map[string]string{}
	for _, r := range evaluate(t, module, map[string]any{"templates_dir": dir, "revoke_certificates": true, "revoke_stored_certificates": true, "also_auth_mounts": []any{"old"}}) {
		if r.kind == "vault_policy" {
			ours[strings.TrimPrefix(fmt.Sprint(r.attributes["name"]), "ec2-provisioner-")] = fmt.Sprint(r.attributes["policy"])
		}
	}
	if len(ours) != 3 || !maps.Equal(ours, theirs) {
		t.Errorf("these tests evaluate to\n%v\nTerraform to\n%v", ours, theirs)
	}
}

// terraform returns a function that runs Terraform on a copy of some of the module's files. It skips the test without Terraform.
func terraform(t *testing.T, files ...string) func(input string, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("terraform is not installed: only the tests' own evaluation checks the module")
	}
	dir := t.TempDir()
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(module, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(input string, args ...string) (string, error) {
		var out, problems strings.Builder
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(input), &out, &problems
		if err := cmd.Run(); err != nil {
			return out.String(), fmt.Errorf("%w: %s", err, problems.String())
		}
		return out.String(), nil
	}
}
