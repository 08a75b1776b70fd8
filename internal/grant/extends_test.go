package grant_test

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// gpuProfile extends the baseline: another role, another TTL, one more output, and one in the place of the base's.
const gpuProfile = `name: alice_cluster-gpu
extends: worker
match: {iam_role_arn: "arn:aws:iam::*:role/alice-gpu"}
auth: {token_ttl: 30m}
outputs:
  - {name: metrics, type: pki-role, path: pki/k8s/roles, template: metrics.json.tmpl}
  - {name: node, type: policy, template: gpu.hcl.tmpl}
`

func extended(changes ...func(fstest.MapFS)) fstest.MapFS {
	return filesWith(append([]func(fstest.MapFS){
		text("gpu/profile.yaml", gpuProfile), text("gpu/metrics.json.tmpl", `{"max_ttl": "1h"}`),
		text("gpu/gpu.hcl.tmpl", "{{ pkiAccess \"kubelet\" }}\n{{ pkiAccess \"metrics\" }}\n"),
	}, changes...)...)
}

// profileOf returns a profile of a set by its name.
func profileOf(t *testing.T, set *grant.Set, name string) *grant.Profile {
	t.Helper()
	at := slices.IndexFunc(set.Profiles, func(p *grant.Profile) bool { return p.Name == name })
	if at < 0 {
		t.Fatalf("the set has no profile %s", name)
	}
	return set.Profiles[at]
}

func TestExtends_CarriesOverAllButMatch(t *testing.T) {
	set, err := grant.Load(extended())
	if err != nil {
		t.Fatal(err)
	}
	p, base := profileOf(t, set, "alice_cluster-gpu"), profileOf(t, set, "alice_cluster-worker")
	if p.BasePath != base.BasePath || p.FQDN != base.FQDN || p.Auth.TokenMaxTTL != base.Auth.TokenMaxTTL || !p.Auth.BindTokenToInstanceIP {
		t.Errorf("want what the file leaves out from its base, got %+v", p)
	}
	if p.Auth.TokenTTL.String() != "30m0s" || base.Auth.TokenTTL.String() != "1h0m0s" {
		t.Errorf("want its own token_ttl, and the base's unchanged, got %v and %v", p.Auth.TokenTTL, base.Auth.TokenTTL)
	}
	var names []string
	for _, o := range p.Outputs {
		names = append(names, o.Name+" "+o.Template)
	}
	if want := []string{"node gpu.hcl.tmpl", "kubelet kubelet.json.tmpl", "host host.json.tmpl", "metrics metrics.json.tmpl"}; !slices.Equal(names, want) {
		t.Errorf("want the outputs %v, got %v", want, names)
	}

	// An instance of the one role has the one profile.
	i := baseline()
	if matched, err := set.Match(i); err != nil || matched != base {
		t.Errorf("want the worker's role to match the base alone, got %v, %v", matched, err)
	}
	i.IAMRoleARN, i.IAMInstanceProfileARN = "arn:aws:iam::123456789012:role/alice-gpu", "arn:aws:iam::123456789012:instance-profile/alice-gpu"
	matched, err := set.Match(i)
	if err != nil || matched != p {
		t.Fatalf("want the other role to match the profile that extends it, got %v, %v", matched, err)
	}
	g, err := matched.Render(i, grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, o := range g.All() {
		paths = append(paths, o.Path)
	}
	for _, want := range []string{"alice_cluster/pki/k8s/roles/" + i.ID + "-kubelet", "alice_cluster/pki/k8s/roles/" + i.ID + "-metrics", "alice_cluster/ssh/roles/" + i.ID + "-host"} {
		if !slices.Contains(paths, want) {
			t.Errorf("want %s granted, got %v", want, paths)
		}
	}
}

// A grant is compared by its profile's digest, so a change of a base must reach every profile that extends it, and no other.
func TestExtends_ChangesTheDigestWithTheBase(t *testing.T) {
	digest := func(changes ...func(fstest.MapFS)) string {
		t.Helper()
		set, err := grant.Load(extended(changes...))
		if err != nil {
			t.Fatal(err)
		}
		return profileOf(t, set, "alice_cluster-gpu").Digest
	}
	before := digest()
	for name, change := range map[string]func(fstest.MapFS){
		"a value of the base":       replace("worker/profile.yaml", "token_max_ttl: 24h", "token_max_ttl: 12h"),
		"a template of the base":    text("worker/kubelet.json.tmpl", `{"max_ttl": "12h", "organization": ["system:nodes"]}`),
		"a template of its own":     text("gpu/metrics.json.tmpl", `{"max_ttl": "2h"}`),
		"an output of its own file": replace("gpu/profile.yaml", "name: metrics,", "name: metric,"),
	} {
		if name == "an output of its own file" {
			change = both(change, text("gpu/gpu.hcl.tmpl", "{{ pkiAccess \"metric\" }}\n"))
		}
		if digest(change) == before {
			t.Errorf("%s: want another digest, or running instances keep their former grant", name)
		}
	}
	if digest(text("worker/policy.hcl.tmpl", baselinePolicy+"\n")) != before {
		t.Error("want the same digest after a change of a base's template that it does not use")
	}
	alone, err := grant.Load(files())
	if err != nil {
		t.Fatal(err)
	}
	set, err := grant.Load(extended())
	if err != nil || profileOf(t, set, "alice_cluster-worker").Digest != alone.Profiles[0].Digest {
		t.Errorf("want the base's own digest unchanged by the profiles that extend it (%v)", err)
	}
}

func TestExtends_FromAnAbstractProfile(t *testing.T) {
	abstract := replace("worker/profile.yaml", "name: alice_cluster-worker\nmatch: {iam_role_arn: \"arn:aws:iam::*:role/alice-worker\"}\n", "abstract: true\n")
	set, err := grant.Load(extended(abstract))
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Profiles) != 1 || set.Profiles[0].Name != "alice_cluster-gpu" {
		t.Errorf("want the one profile that extends it, got %d", len(set.Profiles))
	}
	if n, faults, err := grant.Check(extended(abstract), grant.DefaultRules()); n != 1 || len(faults) > 0 || err != nil {
		t.Errorf("want one profile without faults, got %d, %v, %v", n, faults, err)
	}
	if matched, err := set.Match(baseline()); err != nil || matched != nil {
		t.Errorf("want no instance to match an abstract profile, got %v, %v", matched, err)
	}
}

func TestExtends_RefusesWhatAReaderCannotFollow(t *testing.T) {
	abstract := "abstract: true\nbase_path: alice_cluster\n"
	for name, c := range map[string]struct {
		change func(fstest.MapFS)
		want   string
	}{
		"no such folder":            {replace("gpu/profile.yaml", "extends: worker", "extends: none"), "extends: none/profile.yaml"},
		"itself":                    {replace("gpu/profile.yaml", "extends: worker", "extends: gpu"), "not the name of another folder"},
		"a folder above":            {replace("gpu/profile.yaml", "extends: worker", "extends: ../worker"), "not the name of another folder"},
		"a folder below":            {replace("gpu/profile.yaml", "extends: worker", "extends: worker/sub"), "not the name of another folder"},
		"this folder":               {replace("gpu/profile.yaml", "extends: worker", "extends: ."), "not the name of another folder"},
		"two levels":                {both(text("more/profile.yaml", strings.NewReplacer("extends: worker", "extends: gpu", "alice_cluster-gpu", "alice_cluster-more", "alice-gpu", "alice-more").Replace(gpuProfile))), "extends worker itself"},
		"a circle":                  {replace("worker/profile.yaml", "base_path:", "extends: gpu\nbase_path:"), "itself: extend a profile that extends nothing"},
		"a base with a wrong key":   {replace("worker/profile.yaml", "base_path:", "base_paht:"), "extends: worker/profile.yaml: decoding the profile"},
		"the base's match":          {replace("gpu/profile.yaml", "match: {iam_role_arn: \"arn:aws:iam::*:role/alice-gpu\"}\n", ""), "match: iam_role_arn or iam_instance_profile_arn is required"},
		"the base's name":           {replace("gpu/profile.yaml", "name: alice_cluster-gpu\n", ""), `name: ""`},
		"an output twice":           {replace("gpu/profile.yaml", "name: metrics,", "name: node,"), "the name appears twice"},
		"unused":                    {text("base/profile.yaml", abstract), "no profile extends it"},
		"abstract that extends":     {text("base/profile.yaml", abstract+"extends: worker\n"), "an abstract profile is a base and extends nothing"},
		"a lost target of a policy": {replace("gpu/gpu.hcl.tmpl", "kubelet", "kublet"), `pkiAccess "kublet" names no pki-role output`},
	} {
		if _, err := grant.Load(extended(c.change)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want a refusal with %q, got %v", name, c.want, err)
		}
	}
}
