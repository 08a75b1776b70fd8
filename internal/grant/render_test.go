package grant_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestBaseline_LoadsAndRenders(t *testing.T) {
	g := rendered(t, files(), baseline())
	var paths []string
	for _, o := range g.All() {
		paths = append(paths, string(o.Kind)+" "+o.Path)
	}
	want := []string{
		"policy sys/policies/acl/ec2-i-0123456789abcdef0-node",
		"pki-role alice_cluster/pki/k8s/roles/i-0123456789abcdef0-kubelet",
		"generic alice_cluster/ssh/roles/i-0123456789abcdef0-host",
		"auth-role auth/aws/role/i-0123456789abcdef0",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("other programs rely on these names\ngot  %q\nwant %q", paths, want)
	}
	again := rendered(t, files(), baseline())
	for i, o := range g.All() {
		if o.SHA256() != again.All()[i].SHA256() {
			t.Errorf("%s renders differently the second time: every event would write it", o.Path)
		}
	}
}

func TestRender_BadValueGrantsNothing(t *testing.T) {
	inPath := replace("worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .Tag "team" }}`)
	inJSON := replace("worker/host.json.tmpl", "{{ .FQDN }}", `{{ .Tag "team" }}`)
	tag := func(key, value string) func(*facts.Instance) {
		return func(f *facts.Instance) { f.Tags[key] = value }
	}
	for name, row := range map[string]struct {
		spoil  func(fstest.MapFS)
		change func(*facts.Instance)
		kind   fault.Kind
		says   string
	}{
		"no DNS name yet":                      {both(), func(f *facts.Instance) { f.PrivateDNSName = "" }, fault.Retry, ".PrivateDNSName is empty"},
		"no address yet":                       {both(), func(f *facts.Instance) { f.IPv4s = nil }, fault.Retry, "no private address"},
		"an invalid instance ID":               {both(), func(f *facts.Instance) { f.ID = "i-x" }, fault.Refuse, "instance ID"},
		"an FQDN that is an address":           {tagged, tag("name", "10.0.0.5"), fault.Refuse, "not a host name"},
		"an FQDN with a wildcard":              {tagged, tag("name", "*.corp.example"), fault.Refuse, "only letters, digits"},
		"an FQDN with a space":                 {tagged, tag("name", "a b.corp.example"), fault.Refuse, "RFC 1123"},
		"an FQDN with an empty label":          {tagged, tag("name", "a..corp.example"), fault.Refuse, "RFC 1123"},
		"an FQDN outside its suffixes":         {tagged, tag("name", "db1.evil.example"), fault.Refuse, "none of fqdn_suffixes"},
		"an FQDN that ends like a suffix":      {tagged, tag("name", "db1.notcorp.example"), fault.Refuse, "none of fqdn_suffixes"},
		"the suffix alone":                     {tagged, tag("name", "corp.example"), fault.Refuse, "none of fqdn_suffixes"},
		"an FQDN of 300 characters":            {tagged, tag("name", strings.Repeat("abcdefgh.", 27)+"corp.example"), fault.Refuse, "253"},
		"a missing tag":                        {inPath, func(f *facts.Instance) { delete(f.Tags, "team") }, fault.Retry, `no tag "team"`},
		"an empty tag":                         {inPath, tag("team", ""), fault.Retry, "is empty"},
		"a tag with a quote":                   {inPath, tag("team", `x" { capabilities = ["sudo"] } path "sys/*`), fault.Refuse, "only letters, digits"},
		"a tag with a newline":                 {inPath, tag("team", "x\npath"), fault.Refuse, `\n`},
		"a tag with braces":                    {inPath, tag("team", "{{identity.entity.id}}"), fault.Refuse, "only letters, digits"},
		"a tag with a comma":                   {inJSON, tag("team", "a,b"), fault.Refuse, "only letters, digits"},
		"a tag with a glob":                    {inPath, tag("team", "*"), fault.Refuse, "only letters, digits"},
		"a tag with an invisible character":    {inPath, tag("team", "a\u200bb"), fault.Refuse, `\u200b`},
		"a tag of 4 kB":                        {inPath, tag("team", strings.Repeat("a", 4096)), fault.Refuse, "more than 256"},
		"a tag that is a one-segment wildcard": {inPath, tag("team", "+"), fault.Refuse, "changes the structure"},
		"a tag that adds a segment":            {inPath, tag("team", "a/b"), fault.Refuse, "changes the structure"},
		"a tag that is a dot segment":          {inPath, tag("team", ".."), fault.Refuse, "dot segment"},
	} {
		t.Run(name, func(t *testing.T) {
			f := baseline()
			row.change(&f)
			g, err := render(t, filesWith(row.spoil), f)
			if err == nil || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.says) {
				t.Fatalf("want an error of kind %s that says %q, got %v (kind %s), grant %v", row.kind, row.says, err, fault.KindOf(err), g)
			}
			if !strings.Contains(err.Error(), f.ID) || !strings.Contains(err.Error(), "alice_cluster-worker") {
				t.Errorf("the error must name instance and profile: %v", err)
			}
			if errors.Is(err, grant.ErrNotYet) != (row.kind == fault.Retry) {
				t.Errorf("want a retry for values that are not known yet, and for no other: %v", err)
			}
		})
	}
}

func TestRender_AcceptsATagInAPath(t *testing.T) {
	g := rendered(t, filesWith(replace("worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .Tag "team" }}`)), baseline())
	if text := policyOf(g); !strings.Contains(text, `path "alice_cluster/kv/data/storage"`) {
		t.Errorf("want the tag's value in the path, got %s", text)
	}
}

// The template uses no name itself, but cuts the instance's own out of a generated rule and makes another rule of it.
func TestRender_ComparesReworkedRules(t *testing.T) {
	reworked := replace("worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`,
		`{{ pkiAccess "kubelet" | replace "alice_cluster/pki/k8s" "alice_cluster/kv" | replace "." "\", \"" }}`)
	f := baseline()
	f.PrivateDNSName = "ip-10-1-1-4.internal" // as many labels as the neutral name
	rendered(t, filesWith(reworked), f)
	g, err := render(t, filesWith(reworked), baseline())
	if err == nil || !strings.Contains(err.Error(), "changes the structure") {
		t.Errorf("want a refusal, since a name with one label more makes one more allowed value, got %v, grant %v", err, g)
	}
}

func FuzzRenderTag(f *testing.F) {
	for _, s := range []string{"storage", `x" {}`, "{{", "a/b", "+", "*", "..", "\x00", "\u202e", "a,b", "#", "${x}", `\"`} {
		f.Add(s)
	}
	inPath, inJSON := replace("worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .Tag "team" }}`), replace("worker/host.json.tmpl", "{{ .FQDN }}", `{{ .Tag "team" }}`)
	set, err := grant.Load(filesWith(inPath, inJSON))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		i := baseline()
		i.Tags["team"] = tag
		p, err := set.Match(i)
		if err != nil || p == nil {
			t.Fatal("the instance must match")
		}
		g, err := p.Render(i, grant.Realm{Deployment: "d", AuthMount: "aws"})
		if err != nil {
			return
		}
		text := policyOf(g)
		if strings.Count(text, "path ") != 3 || strings.Count(text, "capabilities") != 3 || !strings.Contains(text, `"alice_cluster/kv/data/`+tag+`"`) {
			t.Errorf("tag %q renders\n%s", tag, text)
		}
	})
}
