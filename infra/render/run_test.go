package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

var update = flag.Bool("update", false, "write what is printed into testdata")

var templates = filepath.Join("..", "..", "templates")

// rendered runs the command with args and returns its exit status and output.
func rendered(t *testing.T, args ...string) (int, string) {
	t.Helper()
	o, err := parse(append([]string{"-templates", templates}, args...), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	status, err := run(t.Context(), o, &out)
	if err != nil {
		t.Fatal(err)
	}
	return status, out.String()
}

func TestRender_PrintsTheObjectsToWrite(t *testing.T) {
	for name, args := range map[string][]string{
		"made-up":  {"-profile", "alice_cluster-worker"},
		"facts":    {"-facts", filepath.Join("testdata", "facts.json")},
		"not-this": {"-profile", "alice_cluster-etcd", "-facts", filepath.Join("testdata", "facts.json")},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := rendered(t, args...)
			if want := map[string]int{"not-this": refused}[name]; status != want {
				t.Errorf("want the exit status %d, got %d", want, status)
			}
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("%v (make golden writes it)\ngot\n%s\nwant\n%s", err, got, want)
			}
		})
	}
}

// spoiled writes a copy of the sample with one text replaced by another, and returns its path.
func spoiled(t *testing.T, old, with string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "facts.json"))
	if err != nil || !strings.Contains(string(text), old) {
		t.Fatalf("the sample does not hold %q (%v)", old, err)
	}
	file := filepath.Join(t.TempDir(), "facts.json")
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), old, with, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRender_NamesTheReasonOfARefusal(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"a value that AWS lacks yet": {`"ip-10-2-0-7.eu-central-1.compute.internal"`, `""`, "NOT YET"},
		"an invalid name":            {`"ip-10-2-0-7.eu-central-1.compute.internal"`, `"ip_10"`, "REFUSED"},
		"a role in no profile":       {"role/alice-worker", "role/bob", "no profile matches"},
		"the closest profile": {
			"role/alice-worker", "role/alice-workers",
			"closest:  alice_cluster-worker\n          match.iam_role_arn: the instance has \"arn:aws:iam::111122223333:role/alice-workers\", wanted is \"arn:aws*:iam::*:role/alice-worker\" or \"arn:aws*:iam::*:role/*/alice-worker\"\nthen: ",
		},
		"a condition that is not met": {
			"vpc-0a1b2c3d", "vpc-00000001",
			"closest:  alice_cluster-worker\n          match.vpc_ids: the instance has \"vpc-00000001\", wanted is \"vpc-0a1b2c3d\"\nthen: ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := rendered(t, "-facts", spoiled(t, c.old, c.new))
			if status != refused || !strings.Contains(got, c.says) || strings.Contains(got, "===") {
				t.Errorf("want status %d, %q and no object, got %d:\n%s", refused, c.says, status, got)
			}
		})
	}
}

func TestRender_NamesTheWrongArgument(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "-profile"}, {[]string{"-instance", "x"}, "not the ID"}, {[]string{"-instance", "i-0123456789abcdef0", "-facts", "f"}, "use one"},
		{[]string{"-profile", "x", "y"}, `"y"`},
	} {
		if _, err := parse(c.args, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: want an error with %q, got %v", c.args, c.says, err)
		}
	}
	for says, o := range map[string]options{
		"there are alice_cluster-etcd": {templates: templates, profile: "x"},
		"unknown field":                {templates: templates, facts: spoiled(t, `"state"`, `"status"`)},
		"are refused":                  {templates: t.TempDir(), profile: "x"},
	} {
		if _, err := run(t.Context(), byDefault(o), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error with %q, got %v", says, err)
		}
	}
}

func TestProfilesPage_ShowsTheSampleFacts(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "profiles.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	sample, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/profiles.md shows no facts")
	}
	file := filepath.Join(t.TempDir(), "facts.json")
	if err := os.WriteFile(file, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	_, shown := rendered(t, "-facts", file)
	_, want := rendered(t, "-facts", filepath.Join("testdata", "facts.json"))
	_, shown, _ = strings.Cut(shown, "\n")
	_, want, _ = strings.Cut(want, "\n")
	if shown != want {
		t.Errorf("the page's facts render as\n%s\nthe sample's as\n%s", shown, want)
	}
}

func TestSampleInstance_FitsTheProfilesAccounts(t *testing.T) {
	for pattern, want := range map[string]string{"": "123456789012", "210987654321": "210987654321", "1111*": "111100000000", "*22": "000000000022", "1*2*3": "100000000023", "*": "000000000000"} {
		m := grant.Match{}
		if pattern != "" {
			m.AccountIDs = []string{pattern}
		}
		if got := accountOf(m, "123456789012"); got != want {
			t.Errorf("account_ids %q: want %q, got %q", pattern, want, got)
		}
	}
}

func TestCheck_ReportsWhetherProfilesPass(t *testing.T) {
	if status, out := rendered(t, "-check"); status != granted || !strings.Contains(out, "all 3 profiles") {
		t.Errorf("want the built-in profiles to pass, got %d, %q", status, out)
	}
	o, err := parse([]string{"-templates", templates, "-check", "-max-certificate-ttl", "24h"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := run(t.Context(), o, &bytes.Buffer{}); status != refused || err == nil || !strings.Contains(err.Error(), "MAX_CERTIFICATE_TTL") {
		t.Errorf("want profiles above the deployment's limit refused before a deployment, got %d, %v", status, err)
	}
}

func byDefault(o options) options {
	o.rules = grant.DefaultRules()
	return o
}
