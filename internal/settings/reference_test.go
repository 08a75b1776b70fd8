package settings_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/settings"
)

var update = flag.Bool("update", false, "write docs/configuration.md's tables instead of comparing")

var root = filepath.Join("..", "..")

// template is what of template.yaml makes the functions' environment.
type template struct {
	Metadata struct {
		Interface struct {
			ParameterGroups []struct {
				Label struct {
					Default string `yaml:"default"`
				} `yaml:"Label"`
				Parameters []string `yaml:"Parameters"`
			} `yaml:"ParameterGroups"`
		} `yaml:"AWS::CloudFormation::Interface"`
	} `yaml:"Metadata"`
	Parameters map[string]struct {
		Default        *string  `yaml:"Default"`
		Description    string   `yaml:"Description"`
		AllowedValues  []string `yaml:"AllowedValues"`
		AllowedPattern string   `yaml:"AllowedPattern"`
	} `yaml:"Parameters"`
	Conditions map[string]yaml.Node `yaml:"Conditions"`
	Globals    struct {
		Function function `yaml:"Function"`
	} `yaml:"Globals"`
	Resources map[string]struct {
		Type       string    `yaml:"Type"`
		Properties yaml.Node `yaml:"Properties"`
	} `yaml:"Resources"`
}

type function struct {
	Environment struct {
		Variables map[string]yaml.Node `yaml:"Variables"`
	} `yaml:"Environment"`
}

func readTemplate(t *testing.T) (template, map[string]yaml.Node) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var s template
	if err := yaml.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	wired := s.Globals.Function.Environment.Variables
	for _, r := range s.Resources {
		if r.Type != "AWS::Serverless::Function" {
			continue
		}
		var f function
		if err := r.Properties.Decode(&f); err != nil {
			t.Fatal(err)
		}
		for name, node := range f.Environment.Variables {
			wired[name] = node
		}
	}
	if len(wired) < 15 || len(s.Parameters) < 15 {
		t.Fatalf("template.yaml was not understood: %d variables, %d parameters", len(wired), len(s.Parameters))
	}
	return s, wired
}

var substituted = regexp.MustCompile(`\$\{(\w+)\}`)

// parameters are those that a value of the template hangs on, by the conditions it names too.
func (s template) parameters(n *yaml.Node) []string {
	var names []string
	add := func(name string) {
		if _, ok := s.Parameters[name]; ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	switch n.Tag {
	case "!Ref":
		add(n.Value)
	case "!Sub":
		for _, m := range substituted.FindAllStringSubmatch(n.Value, -1) {
			add(m[1])
		}
	case "!If":
		if condition, ok := s.Conditions[n.Content[0].Value]; ok {
			for _, p := range s.parameters(&condition) {
				add(p)
			}
		}
	}
	for _, c := range n.Content {
		for _, p := range s.parameters(c) {
			add(p)
		}
	}
	return names
}

func TestTemplateAndSettingsAgreeOnEveryVariable(t *testing.T) {
	s, wired := readTemplate(t)
	known := map[string]settings.Variable{}
	for _, v := range settings.Reference() {
		known[v.Name] = v
		if v.Meaning == "" {
			t.Errorf("%s has no meaning in reference.go", v.Name)
		}
	}
	for name, node := range wired {
		v, ok := known[name]
		if !ok {
			if !strings.HasPrefix(name, "GO") && !strings.HasPrefix(name, "AWS_") { // the runtime's and the SDK's
				t.Errorf("template.yaml sets %s, which no function reads", name)
			}
			continue
		}
		if node.Tag != "!Ref" {
			continue
		}
		p, isParameter := s.Parameters[node.Value]
		switch {
		case !isParameter:
		case name == "EVENT_BUS_NAME": // every account has the bus named default; without the variable there is none
		case p.Default == nil && !v.Required, p.Default != nil && *p.Default != v.Default:
			t.Errorf("%s: the functions' default is %q, that of parameter %s is %v", name, v.Default, node.Value, text(p.Default))
		case len(v.Values) > 0 && !slices.Equal(slices.Sorted(slices.Values(v.Values)), slices.Sorted(slices.Values(p.AllowedValues))):
			t.Errorf("%s takes %q, parameter %s allows %q", name, v.Values, node.Value, p.AllowedValues)
		}
	}
	for name, v := range known {
		if _, ok := wired[name]; v.Required && !ok {
			t.Errorf("the functions need %s, and template.yaml does not set it", name)
		}
	}
}

func text(s *string) string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("%q", *s)
}

// reference is the generated part of the page.
func reference(t *testing.T) string {
	t.Helper()
	s, wired := readTemplate(t)
	of := map[string][]settings.Variable{} // by parameter
	var without []settings.Variable
	for _, v := range settings.Reference() {
		node := wired[v.Name]
		names := s.parameters(&node)
		for _, p := range names {
			of[p] = append(of[p], v)
		}
		if len(names) == 0 {
			without = append(without, v)
		}
	}
	var b strings.Builder
	grouped := map[string]bool{}
	for _, g := range s.Metadata.Interface.ParameterGroups {
		if g.Label.Default == "" {
			t.Errorf("the parameter group of %s has no label", g.Parameters)
		}
		fmt.Fprintf(&b, "### %s\n\n| parameter | default | meaning | variable |\n| --- | --- | --- | --- |\n", g.Label.Default)
		for _, name := range g.Parameters {
			grouped[name] = true
			p, ok := s.Parameters[name]
			if !ok {
				t.Errorf("the group %q names %s, which is no parameter", g.Label.Default, name)
			}
			meaning, standard := p.Description, "required"
			if len(of[name]) > 0 && meaning == "" {
				meaning = of[name][0].Meaning
			}
			if meaning == "" {
				t.Errorf("nothing says what parameter %s is for: give it a Description", name)
			}
			if p.Default != nil {
				standard = code(*p.Default)
			}
			if len(p.AllowedValues) > 0 {
				meaning += "; one of " + codes(p.AllowedValues)
			}
			var names []string
			for _, v := range of[name] {
				names = append(names, v.Name)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, standard, strings.ReplaceAll(meaning, "|", `\|`), codes(names))
		}
		b.WriteString("\n")
	}
	for name := range s.Parameters {
		if !grouped[name] {
			t.Errorf("parameter %s is in no group of AWS::CloudFormation::Interface: nobody finds it in the console", name)
		}
	}
	b.WriteString("## Variables without a parameter\n\n| variable | default | meaning | in the template |\n| --- | --- | --- | --- |\n")
	for _, v := range without {
		set := "not set"
		if _, ok := wired[v.Name]; ok {
			set = "set by it"
		}
		standard := code(v.Default)
		if v.Required {
			standard = "required"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.Name, standard, v.Meaning, set)
	}
	return b.String()
}

func code(s string) string {
	if s == "" {
		return "none"
	}
	return "`" + s + "`"
}

func codes(names []string) string {
	var out []string
	for _, n := range names {
		out = append(out, "`"+n+"`")
	}
	return strings.Join(out, ", ")
}

func TestTheConfigurationPageSaysWhatTemplateAndSettingsSay(t *testing.T) {
	const begin, end = "<!-- generated: make golden -->\n", "<!-- end -->\n"
	file := filepath.Join(root, "docs", "configuration.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no generated part between %q and %q", file, begin, end)
	}
	want := reference(t)
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil { //nolint:gosec // a page for everybody
			t.Fatal(err)
		}
		return
	}
	if old != want {
		t.Errorf("%s differs from template.yaml and internal/settings: run make golden\nwant\n%s\ngot\n%s", file, want, old)
	}
}

// What the template lets through must start the functions; a function that refuses its settings starts for nobody.
func TestMaxCertificateTTL_TemplateTakesOnlyWhatLoads(t *testing.T) {
	s, _ := readTemplate(t)
	pattern := regexp.MustCompile(s.Parameters["MaxCertificateTTL"].AllowedPattern)
	for text, want := range map[string]bool{
		"8760h": true, "1s": true, "90m": true, "999999h": true, "99999999m": true, "99999999s": true,
		"": false, "0h": false, "-1h": false, "8760": false, "365d": false, "1.5h": false, "500ms": false, "9999999h": false,
		"720h30m": false, // of Go's durations the template takes those of one unit
	} {
		if got := pattern.MatchString(text); got != want {
			t.Errorf("the template takes %q: %v, want %v", text, got, want)
		}
		if _, err := load(map[string]string{"MAX_CERTIFICATE_TTL": text}); want && err != nil {
			t.Errorf("the template takes %q, the functions do not: %v", text, err)
		}
	}
}
