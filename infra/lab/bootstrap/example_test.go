package bootstrap

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"go.yaml.in/yaml/v3"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

var exampleDir = filepath.Join(root, "infra", "terraform", "examples", "auto-scaling-group")

// moduleDir returns the folder of the module that a block uses, by a path from this folder or by the repository's address.
func moduleDir(t *testing.T, b *hclsyntax.Block, from string) string {
	t.Helper()
	source := must(t, b.Body.Attributes["source"].Expr, nil).AsString()
	if _, inside, is := strings.Cut(source, ".git//"); is {
		inside, _, _ = strings.Cut(inside, "?")
		return filepath.Join(root, inside)
	}
	return filepath.Join(from, source)
}

// metaArguments are module arguments of Terraform itself.
var metaArguments = []string{"source", "version", "providers", "count", "for_each", "depends_on"}

// checkModules compares the module blocks of a configuration with the variables of the modules, and its references with their
// outputs.
func checkModules(t *testing.T, from string, configuration []*hclsyntax.Block) {
	t.Helper()
	modules := map[string]*hclsyntax.Block{}
	for _, b := range configuration {
		if b.Type == "module" {
			modules[b.Labels[0]] = b
		}
	}
	for name, b := range modules {
		declared := variables(t, moduleDir(t, b, from))
		for argument := range b.Body.Attributes {
			if _, is := declared[argument]; !is && !slices.Contains(metaArguments, argument) {
				t.Errorf("module %s: %s has no variable %s", name, moduleDir(t, b, from), argument)
			}
		}
		for variable, standard := range declared {
			if b.Body.Attributes[variable] == nil && standard == cty.NilVal {
				t.Errorf("module %s: %s needs the variable %s", name, moduleDir(t, b, from), variable)
			}
		}
	}
	for _, reference := range references(configuration) {
		name, output := step(reference, 1), step(reference, 2)
		if reference.RootName() == "module" && modules[name] != nil && output != "" && blocks(t, moduleDir(t, modules[name], from), "output")[output] == nil {
			t.Errorf("%s: %s has no output %s", reference.SourceRange(), moduleDir(t, modules[name], from), output)
		}
	}
}

// A renamed variable or output would break the example, which is the first configuration that a user copies.
func TestExample_UsesOnlyWhatTheModulesHave(t *testing.T) {
	configuration := bodies(t, exampleDir)
	checkModules(t, exampleDir, configuration)
	declared, modules := variables(t, exampleDir), blocks(t, exampleDir, "module")
	used := map[string]bool{}
	for _, reference := range references(configuration) {
		name := step(reference, 1)
		if reference.RootName() == "module" && modules[name] == nil {
			t.Errorf("%s: the example has no module %s", reference.SourceRange(), name)
		}
		if reference.RootName() != "var" {
			continue
		}
		used[name] = true
		if _, is := declared[name]; !is {
			t.Errorf("%s: the example has no variable %s", reference.SourceRange(), name)
		}
	}
	for name := range declared {
		if !used[name] {
			t.Errorf("the example does not use its variable %s", name)
		}
	}
}

var hclFence = regexp.MustCompile("(?s)```hcl\n(.*?)```")

func TestPages_ConfigureOnlyWhatTheModulesHave(t *testing.T) {
	for _, page := range []string{"deploying.md", "accounts.md"} {
		text, err := os.ReadFile(filepath.Join(root, "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, fence := range hclFence.FindAllSubmatch(text, -1) {
			file, problems := hclsyntax.ParseConfig(fence[1], page, hcl.InitialPos)
			if problems.HasErrors() {
				t.Fatalf("docs/%s: %v", page, problems)
			}
			body, _ := file.Body.(*hclsyntax.Body)
			for _, b := range body.Blocks {
				// The path of a clone, in the caller's folder.
				if source := b.Body.Attributes["source"]; source != nil && strings.HasPrefix(must(t, source.Expr, nil).AsString(), "git::") {
					checkModules(t, "", body.Blocks)
					found = true
					break
				}
			}
		}
		if !found {
			t.Errorf("docs/%s configures no module: this test reads it wrongly", page)
		}
	}
}

// references returns all references of the expressions in some blocks.
func references(configuration []*hclsyntax.Block) []hcl.Traversal {
	var out []hcl.Traversal
	for _, b := range configuration {
		for _, a := range b.Body.Attributes {
			out = append(out, a.Expr.Variables()...)
		}
		out = append(out, references(b.Body.Blocks)...)
	}
	return out
}

// step returns the name of a step of a reference; empty where there is none.
func step(reference hcl.Traversal, i int) string {
	if i >= len(reference) {
		return ""
	}
	attribute, _ := reference[i].(hcl.TraverseAttr)
	return attribute.Name
}

// scope returns the example's scope, with the stack deployed and this CA and address of Vault.
func scope(t *testing.T, ca, address string) *hcl.EvalContext {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	vars := base(t, exampleDir)
	vars["vault_addr"], vars["vault_ca_file"] = cty.StringVal(address), cty.StringVal(file)
	stack := map[string]cty.Value{}
	given := base(t, stackModules[0].path())
	for name, b := range blocks(t, stackModules[0].path(), "output") {
		stack[name] = must(t, b.Body.Attributes["value"].Expr, stackModules[0].deployed(t, given, ""))
	}
	in := &hcl.EvalContext{Functions: functions(), Variables: map[string]cty.Value{
		"var": cty.ObjectVal(vars), "path": cty.ObjectVal(map[string]cty.Value{"module": cty.StringVal(exampleDir)}),
		"module": cty.ObjectVal(map[string]cty.Value{"stack": cty.ObjectVal(stack)}),
	}}
	locals := map[string]cty.Value{}
	for _, b := range bodies(t, exampleDir) {
		if b.Type != "locals" {
			continue
		}
		for name, a := range b.Body.Attributes {
			locals[name] = must(t, a.Expr, in)
		}
	}
	in.Variables["local"] = cty.ObjectVal(locals)
	return in
}

// The names of the functions are the keys that infra/vault/terraform accepts.
func TestExample_PassesEachFunctionsRole(t *testing.T) {
	roles := must(t, blocks(t, exampleDir, "module")["vault"].Body.Attributes["function_roles"].Expr, scope(t, "", "https://v"))
	for function, want := range map[string]string{
		"provision": "ProvisionFunctionRoleArn", "deprovision": "DeprovisionFunctionRoleArn", "reconcile": "ReconcileFunctionRoleArn",
	} {
		if got := roles.AsValueMap()[function]; got == cty.NilVal || got.AsString() != want {
			t.Errorf("the role of %s is %#v, want the stack's output %s", function, got, want)
		}
	}
	if roles.LengthInt() != 3 {
		t.Errorf("want the roles of three functions: %#v", roles)
	}
}

// The stack completes only hooks whose names begin with its prefix: any other would hold each instance until its time is over.
func TestExample_HooksAreThoseOfTheStack(t *testing.T) {
	prefix := *stackModules[0].read(t).Parameters["HookPrefix"].Default
	in := scope(t, "", "https://v")
	want := map[string]string{"autoscaling:EC2_INSTANCE_LAUNCHING": "ABANDON", "autoscaling:EC2_INSTANCE_TERMINATING": "CONTINUE"}
	for _, hook := range inner(t, "aws_autoscaling_group", "initial_lifecycle_hook") {
		text := func(attribute string) string { return must(t, hook.Body.Attributes[attribute].Expr, in).AsString() }
		transition := text("lifecycle_transition")
		if !strings.HasPrefix(text("name"), prefix) || text("name") == prefix {
			t.Errorf("the hook of %s is %q, want a name that begins with %s", transition, text("name"), prefix)
		}
		if text("default_result") != want[transition] {
			t.Errorf("the hook of %s ends in %s, want %q as docs/auto-scaling.md has it", transition, text("default_result"), want[transition])
		}
		// The queue's next try comes after 120 s, and AWS counts from the last heartbeat.
		if seconds, _ := must(t, hook.Body.Attributes["heartbeat_timeout"].Expr, in).AsBigFloat().Int64(); seconds < 180 {
			t.Errorf("the hook of %s ends after %d s without a heartbeat, want 180 or more", transition, seconds)
		}
		delete(want, transition)
	}
	if len(want) > 0 {
		t.Errorf("the group has no hook for %v", want)
	}
	for _, module := range []string{"module.stack", "module.vault"} {
		if depends := source(t, resourceOf(t, "aws_autoscaling_group").Body.Attributes["depends_on"].Expr); !strings.Contains(depends, module) {
			t.Errorf("the group must wait for %s: %s", module, depends)
		}
	}
}

// Without its functions nothing removes a grant, so Terraform must not delete the stack or replace it under another name.
func TestTerraform_NeverDestroysTheStack(t *testing.T) {
	for _, b := range stackModules[0].stackResource(t).Body.Blocks {
		if keeps := b.Body.Attributes["prevent_destroy"]; b.Type == "lifecycle" && keeps != nil && source(t, keeps.Expr) == "true" {
			return
		}
	}
	t.Errorf("the stack of %s needs lifecycle { prevent_destroy = true }", stackModules[0].dir)
}

// resourceOf returns the example's one resource of a type.
func resourceOf(t *testing.T, kind string) *hclsyntax.Block {
	t.Helper()
	var found []*hclsyntax.Block
	for _, b := range bodies(t, exampleDir) {
		if b.Type == "resource" && b.Labels[0] == kind {
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		t.Fatalf("the example has %d resources %s, want one", len(found), kind)
	}
	return found[0]
}

// inner returns the blocks of a type in the example's one resource of a type.
func inner(t *testing.T, kind, block string) []*hclsyntax.Block {
	t.Helper()
	var found []*hclsyntax.Block
	for _, b := range resourceOf(t, kind).Body.Blocks {
		if b.Type == block {
			found = append(found, b)
		}
	}
	return found
}

// As infra/instance/README.md demands: only version 2 of the metadata service, and out of the reach of containers.
func TestExample_LaunchesAsTheInstancesSideDemands(t *testing.T) {
	in := scope(t, "", "https://v")
	options := inner(t, "aws_launch_template", "metadata_options")
	if len(options) != 1 {
		t.Fatalf("the launch template has %d blocks metadata_options, want one", len(options))
	}
	for attribute, want := range map[string]string{"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": "1"} {
		a := options[0].Body.Attributes[attribute]
		if a == nil || fmt.Sprint(toJSON(t, must(t, a.Expr, in))) != want {
			t.Errorf("metadata_options: want %s = %s", attribute, want)
		}
	}
	profile := resourceOf(t, "aws_iam_instance_profile").Body.Attributes["role"]
	if source(t, profile.Expr) != "aws_iam_role.worker.name" || source(t, inner(t, "aws_launch_template", "iam_instance_profile")[0].Body.Attributes["arn"].Expr) != "aws_iam_instance_profile.worker.arn" {
		t.Error("the instances must have the role that the profile names")
	}

	set, err := grant.Load(templates.FS)
	if err != nil {
		t.Fatal(err)
	}
	role := must(t, resourceOf(t, "aws_iam_role").Body.Attributes["name"].Expr, in).AsString()
	for _, p := range set.Profiles {
		if p.Name != "alice_cluster-worker" {
			continue
		}
		instance := facts.Instance{ID: "i-0123456789abcdef0", IAMRoleARN: "arn:aws:iam::123456789012:role/" + role, VPCID: p.Match.VPCIDs[0]}
		if fit, err := set.Match(instance); err != nil || fit != p {
			t.Errorf("no profile fits the role %s: %v, %v", role, fit, err)
		}
		return
	}
	t.Error("there is no built-in profile alice_cluster-worker")
}

// The example changes two places of the shipped file by their text, so a change of the file could leave the example's values out.
func TestExample_UserDataHasAddressAndCA(t *testing.T) {
	const address, ca = "https://vault.test:8200", "-----BEGIN CERTIFICATE-----\nbGluZTE=\nbGluZTI=\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nbGluZTM=\n-----END CERTIFICATE-----\n"
	in := scope(t, ca, address)
	text := must(t, hclExpression(t, "local.user_data"), in).AsString()
	if given := resourceOf(t, "aws_launch_template").Body.Attributes["user_data"]; source(t, given.Expr) != "base64gzip(local.user_data)" {
		t.Errorf("the launch template has the user data %s", source(t, given.Expr))
	}
	written := func(text string) map[string]string {
		var config struct {
			Files []struct{ Path, Content string } `yaml:"write_files"`
		}
		if err := yaml.Unmarshal([]byte(text), &config); err != nil || !strings.HasPrefix(text, "#cloud-config\n") {
			t.Fatalf("not a cloud-config: %v\n%s", err, text)
		}
		files := map[string]string{}
		for _, f := range config.Files {
			files[f.Path] = f.Content
		}
		return files
	}
	shipped, err := os.ReadFile(filepath.Join(root, "infra", "instance", "user-data", "worker.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := written(string(shipped))
	want["/etc/vault-agent/vault-ca.pem"] = ca
	want["/etc/vault-agent/vault.env"] = strings.Replace(want["/etc/vault-agent/vault.env"], "VAULT_ADDR=https://vault.example.com:8200", "VAULT_ADDR="+address, 1)
	got := written(text)
	for path, content := range want {
		if got[path] != content {
			t.Errorf("cloud-init would write to %s\n%s\nwant\n%s", path, got[path], content)
		}
	}
	if !strings.Contains(want["/etc/vault-agent/vault.env"], address) {
		t.Error("the shipped vault.env names another address: this test compares nothing")
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte(text)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	if packed.Len() > 16<<10 {
		t.Errorf("the user data has %d bytes compressed, EC2 takes %d", packed.Len(), 16<<10)
	}
}

func hclExpression(t *testing.T, text string) hcl.Expression {
	t.Helper()
	e, problems := hclsyntax.ParseExpression([]byte(text), "test", hcl.InitialPos)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	return e
}
