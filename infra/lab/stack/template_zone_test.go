package stack

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A landing zone may refuse a role without its boundary or outside of its path. Without the parameters the properties must be
// absent: CloudFormation replaces a role when a path appears, and Vault's roles are bound to the old one.
func TestRoles_TakeBoundaryAndPath(t *testing.T) {
	parameters := member()
	parameters["VaultPrincipalArns"] = "arn:aws:iam::123456789012:role/vault"
	given := member()
	given["VaultPrincipalArns"] = parameters["VaultPrincipalArns"]
	given["PermissionsBoundaryArn"], given["RolePath"] = full["PermissionsBoundaryArn"], full["RolePath"]
	const boundary, path = `{"Ref":"PermissionsBoundaryArn"}`, `{"Ref":"RolePath"}`
	for name, row := range map[string]struct {
		resources      map[string]any
		boundary, path string
	}{
		"the stack":           {resolved(t, full), boundary, path},
		"the stack as before": {resolved(t, bare), "null", "null"},
		"a member":            {resolve(t, shared(t, memberTemplate), given), boundary, path},
		"a member as before":  {resolve(t, shared(t, memberTemplate), parameters), "null", "null"},
	} {
		roles := each(t, row.resources, "AWS::IAM::Role")
		if len(roles) != 3 {
			t.Errorf("%s has %d roles, want 3", name, len(roles))
		}
		for id, role := range roles {
			if text(t, role["PermissionsBoundary"]) != row.boundary || text(t, role["Path"]) != row.path {
				t.Errorf("%s: %s has boundary %v and path %v, want %s and %s", name, id, role["PermissionsBoundary"], role["Path"], row.boundary, row.path)
			}
		}
	}
}

// A binary of another processor than the function's deploys, and fails at each start.
func TestArchitecture_IsBuiltAsChosen(t *testing.T) {
	for _, row := range []struct{ architecture, want string }{{"", "GOARCH=arm64"}, {"arm64", "GOARCH=arm64"}, {"x86_64", "GOARCH=amd64"}, {"amd64", "want arm64 or x86_64"}} {
		for _, target := range []string{"deploy", "build-ProvisionFunction"} {
			args := []string{"--dry-run", target, "ARTIFACTS_DIR=/nowhere"}
			if row.architecture != "" {
				args = append(args, "ARCHITECTURE="+row.architecture)
			}
			cmd := exec.CommandContext(t.Context(), "make", args...)
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			if !strings.Contains(string(out), row.want) || (err != nil) != strings.HasPrefix(row.want, "want") {
				t.Errorf("make %q: want %q, seen %v\n%s", args, row.want, err, out)
			}
		}
	}
	values := list(object(object(product(t)["Parameters"])["Architecture"])["AllowedValues"])
	if !slices.Equal(values, []string{"arm64", "x86_64"}) {
		t.Errorf("the parameter allows %q, the Makefile builds arm64 and x86_64", values)
	}
}

// A StackSet without a permission model is self-managed, and fails where the two roles of that model do not exist.
func TestStackSetCommands_AreComplete(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "accounts.md"))
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]string{ // the other option of create-stack-set, and that of create-stack-instances
		"SERVICE_MANAGED": `--auto-deployment [\s\S]*create-stack-instances [\s\S]*--deployment-targets `,
		"SELF_MANAGED":    `--execution-role-name [\s\S]*--administration-role-arn [\s\S]*create-stack-instances [\s\S]*--accounts `,
	}
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(block[1], "create-stack-set ") {
			continue
		}
		for model, rest := range wanted {
			if regexp.MustCompile(`--permission-model ` + model + ` ` + rest).MatchString(block[1]) {
				delete(wanted, model)
			}
		}
		if !strings.Contains(block[1], "--permission-model ") {
			t.Errorf("no permission model in\n%s", block[1])
		}
	}
	for model := range wanted {
		t.Errorf("docs/accounts.md has no complete commands for %s", model)
	}
	parameters := object(shared(t, memberTemplate)["Parameters"])
	given := map[string]bool{}
	for _, m := range regexp.MustCompile(`ParameterKey=(\w+)`).FindAllStringSubmatch(string(page), -1) {
		if given[m[1]] = true; parameters[m[1]] == nil {
			t.Errorf("docs/accounts.md sets %s, which is no parameter of the template", m[1])
		}
	}
	for name, p := range parameters {
		if object(p)["Default"] == nil && !given[name] {
			t.Errorf("docs/accounts.md does not set %s, which has no default", name)
		}
	}
}
