package stack

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// sam build runs `make --makefile <ContextPath>/Makefile build-<logical ID>` in WorkingDirectory with ARTIFACTS_DIR in the
// environment, and copies ProjectRootDirectory first.
// https://github.com/aws/aws-sam-cli/blob/develop/samcli/lib/build/app_builder.py
func TestSAMBuild_MakesTheSameBinaries(t *testing.T) {
	ours := t.TempDir()
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("111122223333\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, []string{"GOOS=linux", "GOARCH=arm64"}, "build", "BUILD_DIR="+ours, "ACCOUNTS_FILE="+list)
	functions := object(unexpanded(t)["Resources"])
	built := 0
	for id, f := range functions {
		if object(f)["Type"] != "AWS::Serverless::Function" {
			continue
		}
		built++
		name := strings.ToLower(strings.TrimSuffix(id, "Function"))
		if uri := object(object(f)["Properties"])["CodeUri"]; uri != "build/"+name+"/" {
			t.Errorf("%s: make deploy would use %v, but make build writes build/%s/bootstrap", id, uri, name)
		}
		metadata := object(object(f)["Metadata"])
		if metadata["BuildMethod"] != "makefile" || metadata["ContextPath"] != "." || metadata["WorkingDirectory"] != "." {
			t.Errorf("%s: sam build would use another Makefile: %v", id, metadata)
		}
		copied, _ := metadata["ProjectRootDirectory"].(string)
		if _, err := os.Stat(filepath.Join(root, copied, "main.go")); err != nil {
			t.Errorf("%s: sam build copies %q before it builds: %v", id, copied, err)
		}
		artifacts := t.TempDir()
		run(t, []string{"ARTIFACTS_DIR=" + artifacts}, "--makefile", "Makefile", "build-"+id, "ACCOUNTS_FILE="+list)
		theirs, err := os.ReadFile(filepath.Join(artifacts, "bootstrap"))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(ours, name, "bootstrap"))
		if err != nil {
			t.Fatal(err)
		}
		for _, folder := range []string{artifacts, filepath.Join(ours, name)} {
			if text, err := os.ReadFile(filepath.Join(folder, "accounts.txt")); err != nil || string(text) != "111122223333\n" {
				t.Errorf("%s: want the list of accounts in the package: got %q, %v", id, text, err)
			}
		}
		if !bytes.Equal(theirs, want) {
			t.Errorf("%s: sam build makes another binary (%d bytes) than make build (%d bytes)", id, len(theirs), len(want))
		}
	}
	if built != 3 {
		t.Errorf("the template has %d functions, want 3", built)
	}
}

// sam deploy without a template's name prefers .aws-sam/build/template.yaml, which may be left from an earlier sam build.
// https://github.com/aws/aws-sam-cli/blob/develop/samcli/commands/_utils/options.py
func TestMakeDeploy_ShipsTheNewBuild(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "make", "--dry-run", "deploy")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make --dry-run deploy: %v\n%s", err, out)
	}
	text := string(out)
	built, deployed := strings.Index(text, "./functions/"), strings.Index(text, "sam deploy")
	if built < 0 || deployed < built {
		t.Errorf("want the functions built, then deployed; seen\n%s", text)
	}
	if !strings.Contains(text, "sam deploy --template-file template.yaml ") {
		t.Errorf("sam deploy should name template.yaml, or it may ship an old build:\n%s", text)
	}
}

func run(t *testing.T, env []string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// unexpanded returns the product's template as written, with short forms of functions as plain text.
func unexpanded(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var template map[string]any
	if err := yaml.Unmarshal(data, &template); err != nil {
		t.Fatal(err)
	}
	return template
}

func TestSampleConfiguration_NamesRealParameters(t *testing.T) {
	sample, err := os.ReadFile(filepath.Join(root, "samconfig.example.toml"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`"([A-Za-z]+)=([^"]*)"`).FindAllStringSubmatch(string(sample), -1)
	if len(named) < 3 {
		t.Fatalf("the sample names only %q", named)
	}
	parameters := object(product(t)["Parameters"])
	for _, n := range named {
		parameter := object(parameters[n[1]])
		if parameter == nil {
			t.Errorf("the sample sets %s, which is no parameter of the template", n[1])
		}
		pattern, _ := parameter["AllowedPattern"].(string)
		values := []string{n[2]}
		if parameter["Type"] == "CommaDelimitedList" {
			values = strings.Split(n[2], ",")
		}
		for _, v := range values {
			if pattern != "" && !regexp.MustCompile(pattern).MatchString(v) {
				t.Errorf("the sample sets %s to %s, which does not match %s", n[1], v, pattern)
			}
		}
	}
}
