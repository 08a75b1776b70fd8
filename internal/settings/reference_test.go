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
)

var update = flag.Bool("update", false, "write docs/configuration.md's tables instead of comparing")

var root = filepath.Join("..", "..")

// template is the part of template.yaml that sets the functions' environment.
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

// parameters returns the parameters on which a value of the template depends, its conditions included.
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

func TestSettings_AgreeWithTheTemplate(t *testing.T) {
	s, wired := readTemplate(t)
	known := map[string]variable{}
	for _, v := range variables() {
		known[v.name] = v
	}
	for name, node := range wired {
		v, ok := known[name]
		if !ok {
			if !strings.HasPrefix(name, "GO") && !strings.HasPrefix(name, "AWS_") { // Go's and the SDK's
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
		case name == "EVENT_BUS_NAME": // the parameter's default is the bus that every account has; the variable has none
		case p.Default == nil && !v.required, p.Default != nil && *p.Default != v.def():
			t.Errorf("%s: the functions' default is %q, parameter %s's is %v", name, v.def(), node.Value, text(p.Default))
		case len(v.values) > 0 && !slices.Equal(slices.Sorted(slices.Values(v.values)), slices.Sorted(slices.Values(p.AllowedValues))):
			t.Errorf("%s accepts %q, parameter %s allows %q", name, v.values, node.Value, p.AllowedValues)
		}
	}
	for name, v := range known {
		if _, ok := wired[name]; v.required && !ok {
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

// reference returns the generated part of the page.
func reference(t *testing.T) string {
	t.Helper()
	s, wired := readTemplate(t)
	byParameter := map[string][]variable{}
	var without []variable
	for _, v := range variables() {
		node := wired[v.name]
		names := s.parameters(&node)
		for _, p := range names {
			byParameter[p] = append(byParameter[p], v)
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
			if len(byParameter[name]) > 0 && meaning == "" {
				meaning = byParameter[name][0].meaning
			}
			if meaning == "" {
				t.Errorf("parameter %s has no Description", name)
			}
			if p.Default != nil {
				standard = code(*p.Default)
			}
			if len(p.AllowedValues) > 0 {
				meaning += "; one of " + codes(p.AllowedValues)
			}
			var names []string
			for _, v := range byParameter[name] {
				names = append(names, v.name)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, standard, strings.ReplaceAll(meaning, "|", `\|`), codes(names))
		}
		b.WriteString("\n")
	}
	for name := range s.Parameters {
		if !grouped[name] {
			t.Errorf("parameter %s is in no group of AWS::CloudFormation::Interface, so the console lists it last", name)
		}
	}
	b.WriteString("## Variables without a parameter\n\n| variable | default | meaning | in the template |\n| --- | --- | --- | --- |\n")
	for _, v := range without {
		set := "not set"
		if _, ok := wired[v.name]; ok {
			set = "set by it"
		}
		standard := code(v.def())
		if v.required {
			standard = "required"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.name, standard, v.meaning, set)
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

func TestConfigurationPage_MatchesTheSettings(t *testing.T) {
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
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != want {
		t.Errorf("%s differs from template.yaml and internal/settings: run make golden\nwant\n%s\ngot\n%s", file, want, old)
	}
}

// The functions must accept every value that the template accepts: with a refused setting no function starts.
func TestMaxCertificateTTL_LoadsIfTemplateAllows(t *testing.T) {
	s, _ := readTemplate(t)
	pattern := regexp.MustCompile(s.Parameters["MaxCertificateTTL"].AllowedPattern)
	for text, want := range map[string]bool{
		"8760h": true, "1s": true, "90m": true, "999999h": true, "99999999m": true, "99999999s": true,
		"": false, "0h": false, "-1h": false, "8760": false, "365d": false, "1.5h": false, "500ms": false, "9999999h": false,
		"720h30m": false, // the template accepts durations of one unit only
	} {
		if got := pattern.MatchString(text); got != want {
			t.Errorf("the template accepts %q: %v, want %v", text, got, want)
		}
		if _, err := load(map[string]string{"MAX_CERTIFICATE_TTL": text}); want && err != nil {
			t.Errorf("the template accepts %q, the functions do not: %v", text, err)
		}
	}
}
