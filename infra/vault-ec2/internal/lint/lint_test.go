package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// baseline has two profiles without a fault. Each row of a test changes some texts.
func baseline() map[string]string {
	files := map[string]string{}
	for _, name := range []string{"node", "web"} {
		files[name+"/profile.yaml"] = "name: lab-" + name + `
match: {iam_role_arn: "arn:aws:iam::*:role/` + name + `"}
base_path: lab
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: own, type: policy, template: own.hcl.tmpl}
  - {name: cert, type: pki-role, path: pki/roles, template: cert.json.tmpl}
`
		files[name+"/own.hcl.tmpl"] = "{{ pkiAccess \"cert\" }}\npath \"lab/kv/{{ .InstanceID }}\" { capabilities = [\"read\"] }\n"
		files[name+"/cert.json.tmpl"] = "{\n  \"max_ttl\": \"24h\"\n}\n"
	}
	return files
}

// folder writes the baseline with changes, each a file, an old and a new text.
func folder(t *testing.T, changes ...[3]string) string {
	t.Helper()
	files := baseline()
	for _, c := range changes {
		if !strings.Contains(files[c[0]], c[1]) {
			t.Fatalf("%s does not contain %q", c[0], c[1])
		}
		files[c[0]] = strings.Replace(files[c[0]], c[1], c[2], 1)
	}
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// found returns the findings of a folder as JSON has them, with paths below the folder.
func found(t *testing.T, dir string) []Finding {
	t.Helper()
	var out bytes.Buffer
	status, err := Run(Options{Folder: dir, Rules: grant.DefaultRules(), JSON: true}, &out)
	var list []Finding
	if err != nil || json.Unmarshal(out.Bytes(), &list) != nil || list == nil {
		t.Fatalf("want a list, got %v:\n%s", err, out.String())
	}
	if want := map[bool]int{true: faulty, false: clean}[len(list) > 0]; status != want {
		t.Errorf("want the exit status %d for %d findings, got %d", want, len(list), status)
	}
	for i := range list {
		list[i].File = strings.TrimPrefix(strings.TrimPrefix(list[i].File, dir), "/")
	}
	return list
}

func TestLint_NamesProfileFileAndLine(t *testing.T) {
	const profile, policy, role = "node/profile.yaml", "node/own.hcl.tmpl", "node/cert.json.tmpl"
	for name, row := range map[string]struct {
		change [3]string
		want   Finding // of the message only a part
	}{
		"an unknown field":             {[3]string{profile, "base_path: lab", "base_path: lab\nbase_paths: x"}, Finding{"lab-node", profile, 4, "field base_paths not found"}},
		"a text that is not YAML":      {[3]string{profile, "outputs:", "outputs: ]"}, Finding{"", profile, 5, "decoding the profile"}},
		"an empty pattern":             {[3]string{profile, `"arn:aws:iam::*:role/node"`, `["", "*"]`}, Finding{"lab-node", profile, 2, "a pattern is empty"}},
		"a value that is missing":      {[3]string{profile, "token_ttl: 1h, ", ""}, Finding{"lab-node", profile, 0, "auth.token_ttl"}},
		"an unknown value":             {[3]string{policy, ".InstanceID", ".InstanceId"}, Finding{"lab-node", policy, 2, "InstanceId"}},
		"a template that does not end": {[3]string{policy, "{{ .InstanceID }}", "{{ .InstanceID "}, Finding{"lab-node", policy, 2, "parsing the template"}},
		"a text that is not a policy":  {[3]string{policy, "capabilities", "capabilities capabilities"}, Finding{"lab-node", policy, 2, ""}},
		"an unknown field of a role":   {[3]string{role, "max_ttl", "maximum_ttl"}, Finding{"lab-node", role, 2, "maximum_ttl"}},
		"a rule that bars the profile": {[3]string{role, `"24h"`, `"8761h"`}, Finding{"lab-node", role, 2, "MAX_CERTIFICATE_TTL"}},
		"a missing template":           {[3]string{profile, "own.hcl.tmpl", "gone.hcl.tmpl"}, Finding{"lab-node", profile, 0, "gone.hcl.tmpl"}},
		"a name that is taken":         {[3]string{"web/profile.yaml", "lab-web", "lab-node"}, Finding{"lab-node", "web/profile.yaml", 0, "is also in node/profile.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			list := found(t, folder(t, row.change))
			is := func(f Finding) bool {
				return f.Profile == row.want.Profile && f.File == row.want.File && f.Line == row.want.Line && strings.Contains(f.Message, row.want.Message)
			}
			if !slices.ContainsFunc(list, is) {
				t.Errorf("want %+v among %+v", row.want, list)
			}
		})
	}
}

// A fault in a base's template is mended there, and found for each profile that has the template.
func TestLint_NamesTheBasesFile(t *testing.T) {
	const outputs = "outputs:\n  - {name: own, type: policy, template: own.hcl.tmpl}\n  - {name: cert, type: pki-role, path: pki/roles, template: cert.json.tmpl}\n"
	list := found(t, folder(t, [3]string{"web/profile.yaml", outputs, "extends: node\n"}, [3]string{"node/own.hcl.tmpl", ".InstanceID", ".InstanceId"}))
	for _, profile := range []string{"lab-node", "lab-web"} {
		if !slices.ContainsFunc(list, func(f Finding) bool { return f.Profile == profile && f.File == "node/own.hcl.tmpl" && f.Line == 2 }) {
			t.Errorf("want a finding for %s in node/own.hcl.tmpl:2 among %+v", profile, list)
		}
	}
	list = found(t, folder(t, [3]string{"web/profile.yaml", outputs, "extends: node\nabstract: true\n"}))
	if len(list) != 1 || list[0].File != "web/profile.yaml" || !strings.Contains(list[0].Message, "abstract profile is a base") {
		t.Errorf("want one finding for the abstract profile, got %+v", list)
	}
}

// A pipeline must not learn of the second profile's fault only after the first one's is mended.
func TestLint_ReportsEachProfileInOneRun(t *testing.T) {
	list := found(t, folder(t,
		[3]string{"node/profile.yaml", "token_ttl: 1h, ", ""}, [3]string{"node/profile.yaml", "base_path: lab", "base_path: sys"},
		[3]string{"web/cert.json.tmpl", `"24h"`, `"8761h"`},
	))
	for _, says := range []string{"auth.token_ttl", "base_path", "MAX_CERTIFICATE_TTL"} {
		if !slices.ContainsFunc(list, func(f Finding) bool { return strings.Contains(f.Message, says) && !strings.Contains(f.Message, "\n") }) {
			t.Errorf("want a finding of its own with %q among %+v", says, list)
		}
	}
}

func TestLint_PrintsLinesThatEditorsRead(t *testing.T) {
	dir := folder(t, [3]string{"node/own.hcl.tmpl", ".InstanceID", ".InstanceId"})
	var out bytes.Buffer
	status, err := Run(Options{Folder: dir, Rules: grant.DefaultRules()}, &out)
	want := filepath.Join(dir, "node", "own.hcl.tmpl") + ":2: "
	if err != nil || status != faulty || !strings.HasPrefix(out.String(), want) || !strings.Contains(out.String(), "faults: 1, profiles checked") {
		t.Errorf("want status %d and a line that begins with %s, got %d, %v:\n%s", faulty, want, status, err, out.String())
	}
}

func TestLint_StatusSeparatesFaultsFromFailure(t *testing.T) {
	rules := grant.DefaultRules()
	short := rules
	short.MaxTTL = time.Hour
	for name, row := range map[string]struct {
		options Options
		want    int
		says    string
	}{
		"no fault":             {Options{Folder: folder(t), Rules: rules}, clean, "all 2 profiles"},
		"the built-in ones":    {Options{Folder: filepath.Join("..", "..", "..", "..", "templates"), Rules: rules}, clean, "all 3 profiles"},
		"above the stack's":    {Options{Folder: folder(t), Rules: short}, faulty, "MAX_CERTIFICATE_TTL (1h0m0s)"},
		"no profile":           {Options{Folder: t.TempDir(), Rules: rules}, faulty, "no profile found"},
		"no folder":            {Options{Folder: filepath.Join(t.TempDir(), "none"), Rules: rules}, broken, "no such file"},
		"no profile, for a CI": {Options{Folder: t.TempDir(), Rules: rules, JSON: true}, faulty, `"message": `},
	} {
		var out bytes.Buffer
		status, err := Run(row.options, &out)
		if said := out.String() + fmt.Sprint(err); status != row.want || (err != nil) != (row.want == broken) || !strings.Contains(said, row.says) {
			t.Errorf("%s: want status %d and %q, got %d:\n%s", name, row.want, row.says, status, said)
		}
	}
}

func TestLeaves_SplitJoinedErrorsAlone(t *testing.T) {
	a, b := errors.New("a"), errors.New("b\nb")
	for want, err := range map[string]error{
		"a":                        a,
		"x: a|x: b\nb":             fmt.Errorf("x: %w", errors.Join(a, b)),
		"y: x: a|y: c":             fmt.Errorf("y: %w", errors.Join(fmt.Errorf("x: %w", errors.Join(a)), errors.New("c"))),
		"a and b\nb":               fmt.Errorf("%w and %w", a, b),
		"x: a, so nothing is done": fmt.Errorf("x: %w, so nothing is done", errors.Join(a)),
	} {
		if got := strings.Join(leaves(err), "|"); got != want {
			t.Errorf("want %q, got %q", want, got)
		}
	}
}
