package stack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/released"
)

// firstUpgraded is the oldest version that docs/upgrades.md leads from.
const firstUpgraded = "7e55646"

// former returns the expansion of an earlier version's template; ok is false if the checkout has no such version.
func former(t *testing.T, revision, path string) (template map[string]any, ok bool) {
	t.Helper()
	name, err := filepath.Rel(root, path)
	if err != nil {
		t.Fatal(err)
	}
	show := exec.CommandContext(t.Context(), "git", "show", revision+":"+name)
	show.Dir = root
	text, err := show.Output()
	if err != nil {
		return nil, false
	}
	file := filepath.Join(t.TempDir(), "template.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return expand(t, file), true
}

// accepted returns those of the parameters that a template has.
func accepted(template map[string]any, parameters map[string]string) map[string]string {
	all := map[string]string{}
	for name, value := range parameters {
		if object(template["Parameters"])[name] != nil {
			all[name] = value
		}
	}
	return all
}

// earlier returns the versions to update from: BEFORE, or else the oldest one and the last release, if there is one.
func earlier(t *testing.T) []string {
	t.Helper()
	if named := os.Getenv("BEFORE"); named != "" {
		return []string{named}
	}
	if tag, ok := released.Last(t.Context(), root); ok {
		return []string{firstUpgraded, tag}
	}
	return []string{firstUpgraded}
}

// An update to this version with the same parameters, and the way back, must find the table, the queues and the roles of before.
func TestVersions_KeepStatefulResources(t *testing.T) {
	for _, revision := range earlier(t) {
		for _, s := range changedStacks {
			before, ok := former(t, revision, s.template)
			if !ok {
				t.Skipf("the checkout does not have %s: fetch its history, or name another revision with BEFORE", revision)
			}
			for _, parameters := range []map[string]string{s.first, s.most} {
				kept := accepted(before, parameters)
				is := stackOf(t, before, kept)
				// A rule of this version demands the list.
				now := accepted(shared(t, s.template), with(kept, map[string]string{"AllowedAccounts": parameters["AllowedAccounts"]}))
				becomes := stackOf(t, shared(t, s.template), now)
				there, back := compare(schemas(t), is, becomes), compare(schemas(t), becomes, is)
				for _, id := range slices.Concat(there.replaced, there.refused, there.removed, back.replaced, back.refused) {
					if kind := fmt.Sprint(object(is[id])["Type"]); isStateful[kind] {
						t.Errorf("%s: the update from %s replaces or removes %s of type %s: what it holds would be lost", s.name, revision, id, kind)
					}
				}
				t.Logf("%s from %s with %d parameters: adds %q, removes %q, replaces %q", s.name, revision, len(kept), there.added, there.removed, there.replaced)
			}
		}
	}
}
