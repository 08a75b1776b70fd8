package render

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

var update = flag.Bool("update", false, "write what is printed into testdata")

var templates = filepath.Join("..", "..", "..", "..", "templates")

// rendered runs the command with options for the built-in profiles and returns its exit status and output.
func rendered(t *testing.T, o Options) (int, string) {
	t.Helper()
	with := Defaults()
	with.Templates, with.Profile, with.Facts, with.JSON = templates, o.Profile, o.Facts, o.JSON
	var out bytes.Buffer
	status, err := Run(t.Context(), with, &out)
	if err != nil {
		t.Fatal(err)
	}
	return status, out.String()
}

var sample = filepath.Join("testdata", "facts.json")

func TestRender_PrintsTheObjectsToWrite(t *testing.T) {
	for name, o := range map[string]Options{
		"made-up":  {Profile: "alice_cluster-worker"},
		"facts":    {Facts: sample},
		"not-this": {Profile: "alice_cluster-etcd", Facts: sample},
		"as-json":  {Profile: "alice_cluster-worker", JSON: true},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := rendered(t, o)
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
	text, err := os.ReadFile(sample)
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
			status, got := rendered(t, Options{Facts: spoiled(t, c.old, c.new)})
			if status != refused || !strings.Contains(got, c.says) || strings.Contains(got, "===") {
				t.Errorf("want status %d, %q and no object, got %d:\n%s", refused, c.says, status, got)
			}
		})
	}
}

func TestRender_JSONHasTheReason(t *testing.T) {
	for name, c := range map[string]struct {
		facts string
		want  Result
	}{
		"a role in no profile": {spoiled(t, "role/alice-worker", "role/bob"), Result{Verdict: NoProfile, Reason: "no profile matches"}},
		"an invalid name":      {spoiled(t, `"ip-10-2-0-7.eu-central-1.compute.internal"`, `"ip_10"`), Result{Verdict: Refused, Reason: "ip_10"}},
		"a mismatch":           {sample, Result{Profile: "alice_cluster-etcd", Verdict: Mismatch, Other: "profile alice_cluster-worker does"}},
	} {
		status, out := rendered(t, Options{Facts: c.facts, Profile: c.want.Profile, JSON: true})
		var r Result
		if err := json.Unmarshal([]byte(out), &r); err != nil || status != refused {
			t.Fatalf("%s: want status %d and JSON, got %d, %v", name, refused, status, err)
		}
		if r.Verdict != c.want.Verdict || !strings.Contains(r.Reason, c.want.Reason) || r.Other != c.want.Other {
			t.Errorf("%s: want %+v, got %s", name, c.want, out)
		}
		if r.Verdict == NoProfile && (len(r.Closest) != 3 || len(r.Closest[0].Unmet) == 0) {
			t.Errorf("%s: want all profiles with their unmet conditions, got %+v", name, r.Closest)
		}
	}
}

func TestRender_NamesTheWrongArgument(t *testing.T) {
	for says, o := range map[string]Options{
		"--profile":                    {},
		"not the ID":                   {Instance: "x"},
		"use one":                      {Instance: "i-0123456789abcdef0", Facts: "f"},
		"there are alice_cluster-etcd": {Templates: templates, Profile: "x"},
		"unknown field":                {Templates: templates, Facts: spoiled(t, `"state"`, `"status"`)},
		"are refused":                  {Templates: t.TempDir(), Profile: "x"},
		"--templates names yours":      {Templates: filepath.Join(t.TempDir(), "none"), Profile: "x"},
	} {
		o.Rules = grant.DefaultRules()
		want := map[string]int{"are refused": refused}[says] // broken, but for profiles with faults
		if want == 0 {
			want = broken
		}
		if status, err := Run(t.Context(), o, &bytes.Buffer{}); err == nil || status != want || !strings.Contains(err.Error(), says) {
			t.Errorf("want status %d and an error with %q, got %d, %v", want, says, status, err)
		}
	}
}

// The page's profile is the first that an author copies.
func TestProfilesPage_ShowsAWholeProfile(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "profiles.md"))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "worker"), 0o700); err != nil {
		t.Fatal(err)
	}
	rest := string(page)
	for _, f := range []struct{ name, fence string }{
		{"profile.yaml", "yaml"}, {"policy.hcl.tmpl", "hcl"}, {"kubelet.json.tmpl", "json"}, {"sshd.json.tmpl", "json"}, {"seed.json.tmpl", "json"},
	} {
		named := strings.Index(rest, "`"+f.name)
		_, after, ok := strings.Cut(rest[max(named, 0):], "```"+f.fence+"\n")
		text, after, isClosed := strings.Cut(after, "```")
		if named < 0 || !ok || !isClosed {
			t.Fatalf("docs/profiles.md shows no %s after the files before it", f.name)
		}
		rest = after
		if err := os.WriteFile(filepath.Join(folder, "worker", f.name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	status, err := Run(t.Context(), Options{Templates: folder, Profile: "alice_cluster-worker", Rules: grant.DefaultRules(), Realm: Defaults().Realm}, &out)
	if err != nil || status != granted {
		t.Fatalf("want the page's profile granted, got %d, %v\n%s", status, err, out.String())
	}
	_, shown, _ := strings.Cut(rest, "```text\n")
	shown, _, ok := strings.Cut(shown, "…\n")
	if !ok || !strings.HasPrefix(out.String(), shown) {
		t.Errorf("the page shows\n%sand the command prints\n%s", shown, out.String())
	}
}

// The page's example extends the built-in worker.
func TestProfilesPage_ShowsAProfileThatExtendsAnother(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "profiles.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(page), "`profiles/worker-gpu/profile.yaml`:\n\n```yaml\n")
	text, _, ok := strings.Cut(after, "```")
	if !ok {
		t.Fatal("docs/profiles.md shows no profiles/worker-gpu/profile.yaml")
	}
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(templates)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "worker-gpu"), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"profile.yaml": text, "metrics.json.tmpl": `{"max_ttl": "24h"}`, "metrics.hcl.tmpl": `{{ pkiAccess "metrics" }}`} {
		if err := os.WriteFile(filepath.Join(folder, "worker-gpu", file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	status, err := Run(t.Context(), Options{Templates: folder, Profile: "alice_cluster-worker_gpu", Rules: grant.DefaultRules(), Realm: Defaults().Realm}, &out)
	if err != nil || status != granted {
		t.Fatalf("want the page's profile granted, got %d, %v\n%s", status, err, out.String())
	}
	for _, want := range []string{"extends:  worker/profile.yaml\n", "-kubelet\n", "-kube_proxy\n", "-metrics\n", "-metrics_access\n", "\"token_ttl\": 1800"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want the base's and the own objects, with %q, got\n%s", want, out.String())
		}
	}
}

func TestProfilesPage_ShowsTheSampleFacts(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "profiles.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "A file of facts ")
	_, rest, _ = strings.Cut(rest, "```json\n")
	shownFacts, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/profiles.md shows no facts")
	}
	file := filepath.Join(t.TempDir(), "facts.json")
	if err := os.WriteFile(file, []byte(shownFacts), 0o600); err != nil {
		t.Fatal(err)
	}
	_, shown := rendered(t, Options{Facts: file})
	_, want := rendered(t, Options{Facts: sample})
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
