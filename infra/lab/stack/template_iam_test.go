package stack

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/access"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
)

var (
	referenceOnce sync.Once
	readReference *access.Reference
)

// reference returns AWS's service authorization reference. It is shared, since it is large.
func reference(t *testing.T) *access.Reference {
	t.Helper()
	referenceOnce.Do(func() {
		dir, err := parts.FetchAuthorizationReference(t.Context(), partstest.Workspace(t))
		if err != nil {
			t.Fatal(err)
		}
		if readReference, err = access.Load(dir); err != nil {
			t.Fatal(err)
		}
	})
	if readReference == nil {
		t.Fatal("AWS's service authorization reference could not be read")
	}
	return readReference
}

// tryoutTemplate is the network and the Vault of vault-ec2 tryout.
var tryoutTemplate = filepath.Join(root, "infra", "vault-ec2", "internal", "tryout", "aws", "place.yaml")

// memberAccount is an account whose instances get their identity from the central stack.
const memberAccount = "111122223333"

// installations are the stacks whose policies are checked: each option is set in one and not in another.
func installations(t *testing.T) map[string]installation {
	t.Helper()
	template, other := product(t), shared(t, memberTemplate)
	bus := "arn:aws:events:eu-west-1:" + memberAccount + ":event-bus/default" // of the account itself
	return map[string]installation{
		"bare":                    install(t, template, bare, parts.AccountID),
		"full":                    install(t, template, full, parts.AccountID),
		"any account":             install(t, template, with(full, map[string]string{"AllowedAccounts": "*"}), parts.AccountID),
		"without audit bus":       install(t, template, with(bare, map[string]string{"AuditEventBusName": "", "ReconcileSchedule": "off"}), parts.AccountID),
		"tryout":                  install(t, shared(t, tryoutTemplate), map[string]string{"WithVault": "true", "VaultVersion": "1.21.4", "Number": "213", "VaultMemberRoleName": "tryout-vault"}, parts.AccountID),
		"member":                  install(t, other, member(), memberAccount),
		"member with all":         install(t, other, with(member(), map[string]string{"VaultPrincipalArns": "arn:aws:iam::999999999999:role/vault", "ReadyTag": "vault-identity", "RolePath": "/teams/vault/"}), memberAccount),
		"member, no external ID":  install(t, other, with(member(), map[string]string{"VaultPrincipalArns": "arn:aws:iam::999999999999:role/vault", "VaultExternalId": "none"}), memberAccount),
		"central account's other": install(t, other, with(member(), map[string]string{"CentralEventBusArn": bus, "VaultPrincipalArns": "arn:aws:iam::999999999999:role/vault"}), memberAccount),
	}
}

// AWS accepts a statement whose action, resource and condition do not fit each other, and it then allows nothing, or more than
// it says.
func TestPolicies_FitAWSsReference(t *testing.T) {
	checked := 0
	for name, i := range installations(t) {
		for _, p := range i.policies() {
			for _, s := range p.statements {
				checked++
				for _, fault := range append(reference(t).Faults(s, p.kind), tooWide(t, s, p.kind)...) {
					t.Errorf("%s: %s, statement %+v: %s", name, p.name, s, fault)
				}
			}
		}
	}
	if checked < 200 {
		t.Errorf("only %d statements were checked: the test no longer finds the policies", checked)
	}
}

// tooWide returns the actions that a role may do everywhere, although AWS knows narrower resources for them.
func tooWide(t *testing.T, s access.Statement, kind access.Kind) []string {
	t.Helper()
	var out []string
	for _, pattern := range s.Actions {
		for _, a := range reference(t).Expand(pattern) {
			isLambdas := byServices[a.String()] == "Lambda's way into the VPC"
			if kind == access.Identity && s.Effect == "Allow" && slices.Contains(s.Resources, "*") && len(a.ResourceTypes) > 0 && !isLambdas {
				out = append(out, a.String()+" is allowed everywhere, and has narrower resources")
			}
		}
	}
	return out
}

// sample is a statement that a page or example shows.
type sample struct {
	file      string
	statement any
}

// Readers copy these statements.
func TestShownPolicies_FitAWSsReference(t *testing.T) {
	samples := append(shownInPages(t), shownInTerraform(t)...)
	files := map[string]bool{}
	for _, s := range samples {
		files[s.file] = true
		statement, err := access.ParseStatement(s.statement)
		if err != nil {
			t.Errorf("%s: %v", s.file, err)
			continue
		}
		kind := access.Identity
		switch {
		case len(statement.Principals) > 0 && len(statement.Resources) > 0:
			kind = access.Resource
		case len(statement.Principals) > 0:
			kind = access.Trust
		}
		for _, fault := range reference(t).Faults(statement, kind) {
			t.Errorf("%s shows %v: %s", s.file, s.statement, fault)
		}
	}
	for _, file := range []string{"docs/deploying.md", "docs/profiles.md", "infra/terraform/examples/auto-scaling-group/main.tf"} {
		if !files[file] {
			t.Errorf("%s shows no statement any more, or the test does not find it", file)
		}
	}
}

// placeholders are the words of the pages for a reader's own values.
var placeholders = strings.NewReplacer("<region>", region, "<account>", parts.AccountID, "<the stack's name>", stackName,
	"<the table's ARN>", "arn:aws:dynamodb:"+region+":"+parts.AccountID+":table/"+stackName+"-Table-1A2B3C4D5E6F")

func shownInPages(t *testing.T) []sample {
	t.Helper()
	var out []sample
	block := regexp.MustCompile("(?s)```json\n(.*?)```")
	eachFile(t, ".md", func(file, content string) {
		for _, m := range block.FindAllStringSubmatch(content, -1) {
			if !strings.Contains(m[1], `"Effect"`) {
				continue
			}
			var shown any
			if err := json.Unmarshal([]byte(placeholders.Replace(m[1])), &shown); err != nil {
				t.Errorf("%s shows a policy that is no JSON: %v", file, err)
			}
			if document := object(shown); document["Statement"] != nil {
				shown = document["Statement"]
			}
			entries, ok := shown.([]any)
			if !ok {
				entries = []any{shown}
			}
			for _, s := range entries {
				out = append(out, sample{file, s})
			}
		}
	})
	return out
}

// shownInTerraform returns the statements in jsonencode(...) of the modules and examples.
func shownInTerraform(t *testing.T) []sample {
	t.Helper()
	var out []sample
	eachFile(t, ".tf", func(file, content string) {
		parsed, faults := hclsyntax.ParseConfig([]byte(content), file, hcl.InitialPos)
		if faults.HasErrors() {
			t.Fatal(faults)
		}
		body, _ := parsed.Body.(*hclsyntax.Body)
		faults = hclsyntax.VisitAll(body, func(node hclsyntax.Node) hcl.Diagnostics {
			call, ok := node.(*hclsyntax.FunctionCallExpr)
			if !ok || call.Name != "jsonencode" || !strings.Contains(string(call.Range().SliceBytes([]byte(content))), "Effect") {
				return nil
			}
			value, faults := call.Args[0].Value(nil)
			if faults.HasErrors() {
				return faults
			}
			encoded, err := ctyjson.Marshal(value, value.Type())
			if err != nil {
				t.Fatal(err)
			}
			var document map[string]any
			if err := json.Unmarshal(encoded, &document); err != nil {
				t.Fatal(err)
			}
			statements, _ := document["Statement"].([]any)
			for _, s := range statements {
				out = append(out, sample{file, s})
			}
			return nil
		})
		if faults.HasErrors() {
			t.Errorf("%s: the test cannot evaluate a policy: %v", file, faults)
		}
	})
	return out
}

// eachFile calls f with each file of the repository with an ending, by its path from the root.
func eachFile(t *testing.T, ending string, f func(file, content string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "build") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ending) {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(root, path))
		f(path, string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
