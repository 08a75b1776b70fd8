package bootstrap

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// standins are the providers that the modules use, with the versions whose schemas testdata/providers.json has. It is what
// terraform providers schema -json prints, cut down to the resources and blocks of the modules, and was made from the packages
// @cdktf/provider-aws 21.22.1 and @cdktf/provider-vault 15.6.1.
var standins = map[string]string{"aws": "6.25.0", "vault": "5.6.0"}

// configurations are the folders of Terraform's files.
var configurations = []string{
	"infra/terraform/stack", "infra/terraform/member-account", "infra/terraform/examples/auto-scaling-group", "infra/vault/terraform",
}

// workspace is a copy of all modules, and Terraform with providers that know the real ones' schemas and nothing else.
type workspace struct {
	dir, program string
	env          []string
}

// newWorkspace skips the test without Terraform.
func newWorkspace(t *testing.T) workspace {
	t.Helper()
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("terraform is not installed: only the tests' own evaluation checks the modules")
	}
	schemas, err := filepath.Abs(filepath.Join("testdata", "providers.json"))
	if err != nil {
		t.Fatal(err)
	}
	w := workspace{dir: t.TempDir(), program: program}
	mirror, binary := filepath.Join(w.dir, "mirror"), filepath.Join(w.dir, "standin")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	build.Dir = filepath.Join("..", "standin")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building infra/lab/standin: %v\n%s", err, out)
	}
	for name, version := range standins {
		folder := filepath.Join(mirror, "registry.terraform.io", "hashicorp", name, version, runtime.GOOS+"_"+runtime.GOARCH)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(binary, filepath.Join(folder, "terraform-provider-"+name+"_v"+version+"_x5")); err != nil {
			t.Fatal(err)
		}
	}
	settings := filepath.Join(w.dir, "terraform.rc")
	if err := os.WriteFile(settings, fmt.Appendf(nil, "provider_installation {\n  filesystem_mirror { path = %q }\n}\n", mirror), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"infra/terraform", "infra/vault/terraform", "infra/instance/user-data", "infra/member-account", "templates"} {
		if err := os.CopyFS(filepath.Join(w.dir, dir), os.DirFS(filepath.Join(root, dir))); err != nil {
			t.Fatal(err)
		}
	}
	w.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+settings, "STANDIN_SCHEMAS="+schemas, "CHECKPOINT_DISABLE=1")
	return w
}

// run runs Terraform in a folder of the copy.
func (w workspace) run(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), w.program, args...)
	cmd.Dir, cmd.Env = filepath.Join(w.dir, dir), w.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w workspace) init(t *testing.T, dir string) error {
	t.Helper()
	if out, err := w.run(t, dir, "init", "-backend=false", "-input=false", "-no-color"); err != nil {
		return fmt.Errorf("%s: terraform init: %w\n%s", dir, err, out)
	}
	return nil
}

func (w workspace) validate(t *testing.T) {
	t.Helper()
	for _, dir := range configurations {
		if err := w.init(t, dir); err != nil {
			t.Fatal(err)
		}
		if out, err := w.run(t, dir, "validate", "-no-color"); err != nil {
			t.Errorf("%s: terraform validate: %v\n%s", dir, err, out)
		}
	}
}

// Terraform itself compares each argument, block and reference with the providers' schemas. The providers' further checks, of
// values and of arguments that exclude each other, do not run.
func TestTerraform_IsValidForTheProvidersSchemas(t *testing.T) {
	newWorkspace(t).validate(t)
}

func TestTerraform_IsValid(t *testing.T) {
	w := newWorkspace(t)
	w.env = append(w.env, "TF_CLI_CONFIG_FILE="+os.DevNull)
	if err := w.init(t, configurations[0]); err != nil {
		t.Skipf("the providers cannot be downloaded, only their schemas are checked: %v", err)
	}
	w.validate(t)
}

func TestTerraform_IsFormatted(t *testing.T) {
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("terraform is not installed")
	}
	for _, dir := range []string{"infra/terraform", "infra/vault/terraform"} {
		cmd := exec.CommandContext(t.Context(), program, "fmt", "-check", "-recursive", "-diff", dir)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("run terraform fmt -recursive %s: %v\n%s", dir, err, out)
		}
	}
}

// The functions' roles are known only after apply: the first time, and whenever a parameter changes. Vault's side must be
// planned in one run with the stack all the same.
func TestTerraform_PlansVaultBesideAnUnknownStack(t *testing.T) {
	w := newWorkspace(t)
	ca := filepath.Join(w.dir, "ca.pem")
	if err := os.WriteFile(ca, []byte("-----BEGIN CERTIFICATE-----\nbGluZTE=\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const example = "infra/terraform/examples/auto-scaling-group"
	if err := w.init(t, example); err != nil {
		t.Fatal(err)
	}
	args := []string{"plan", "-no-color", "-input=false"}
	for name, value := range map[string]string{
		"region": "eu-central-1", "template_url": "https://b.s3.eu-central-1.amazonaws.com/t", "vault_addr": "https://v", "vault_ca_file": ca, "vault_server_id": "v",
		"subnet_ids": `["subnet-1"]`, "security_group_ids": `["sg-1"]`, "image_id": "ami-1",
	} {
		args = append(args, "-var", name+"="+value)
	}
	if out, err := w.run(t, example, args...); err != nil || !strings.Contains(out, `module.vault.vault_aws_auth_backend_role.function["provision"] will be created`) {
		t.Errorf("the example cannot be planned: %v\n%s", err, out)
	}

	// With a login mount of its own, the accounts decide which roles Vault assumes.
	const separate = `module "stack" {
  source       = "../infra/terraform/stack"
  name         = "one"
  template_url = "https://b.s3.eu-central-1.amazonaws.com/t"
  vault_addr   = "https://v"
}

module "vault" {
  source         = "../infra/vault/terraform"
  function_roles = module.stack.function_roles
  login_mount    = "functions"
  sts_roles      = { "123456789012" = "arn:aws:iam::123456789012:role/v" }
  %s
}
`
	for _, row := range []struct{ argument, wanted string }{
		{`function_account = "123456789012"`, `module.vault.vault_aws_auth_backend_sts_role.function["123456789012"] will be created`},
		{"", "Invalid for_each argument"}, // if this plan succeeds, function_account is not needed
	} {
		if err := os.MkdirAll(filepath.Join(w.dir, "separate"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.dir, "separate", "main.tf"), fmt.Appendf(nil, separate, row.argument), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.init(t, "separate"); err != nil {
			t.Fatal(err)
		}
		if out, _ := w.run(t, "separate", "plan", "-no-color", "-input=false"); !strings.Contains(out, row.wanted) {
			t.Errorf("with the argument %q the plan must contain %s\n%s", row.argument, row.wanted, out)
		}
	}
}

// A mistake shows in the plan, before CloudFormation has changed anything.
func TestTerraform_RefusesBadValuesInThePlan(t *testing.T) {
	w := newWorkspace(t)
	stack := []string{"name=one", "template_url=https://b.s3.eu-central-1.amazonaws.com/t", "vault_addr=https://v"}
	member := []string{
		"central_event_bus_arn=arn:aws:events:eu-central-1:123456789012:event-bus/default", "external_id=one",
		`function_role_arns=["arn:aws:iam::123456789012:role/p","arn:aws:iam::123456789012:role/d"]`,
	}
	for _, dir := range configurations[:2] {
		if err := w.init(t, dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name, dir string
		given     []string
		add       string
		wanted    string
	}{
		{"the least", "stack", stack, "", "1 to add"},
		{"an address without TLS", "stack", stack, "vault_addr=http://v", "Must be an https:// address without a path."},
		{"no list member", "stack", stack, `member_account_ids=["1111"]`, "Each must be an account ID of 12 digits."},
		{"no mode", "stack", stack, "reconcile_mode=repair", "Must be correct or detect."},
		{"the member's own template", "member-account", member, "", "CentralEventBusArn:"},
		{"a template of the user's", "member-account", member, "template_body={}", "jsonencode({})"},
		{"a template that is too long", "member-account", member, "template_body=" + strings.Repeat("x", 51201), "51,200 bytes"},
		{"a template and an address", "member-account", append(slices.Clone(member), "template_url=https://b.s3.eu-central-1.amazonaws.com/t"), "template_body={}", "template_url or template_body"},
	} {
		args := []string{"plan", "-no-color", "-input=false"}
		for _, value := range row.given {
			args = append(args, "-var", value)
		}
		if row.add != "" {
			args = append(args, "-var", row.add)
		}
		if out, _ := w.run(t, "infra/terraform/"+row.dir, args...); !strings.Contains(out, row.wanted) {
			t.Errorf("%s: the plan must contain %q\n%s", row.name, row.wanted, out)
		}
	}
}
