package grant_test

import (
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestNamespace_IsReadAsVaultReadsIt(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "/": "", "root": "", "root/": "", "/root/": "",
		"team": "team", "team/": "team", "/team": "team", "/a/b/": "a/b", "admin/team.x_1-y": "admin/team.x_1-y", "rooted": "rooted",
	} {
		if got, err := grant.ParseNamespace(text); err != nil || got != want {
			t.Errorf("%q: seen %q, %v, want %q: Vault ignores the slashes at the ends, and root has no path", text, got, err, want)
		}
	}
}

func TestNamespace_ThatCannotExistIsRefused(t *testing.T) {
	for _, text := range []string{"a//b", "a b", "a/*", "+", "a/root", "root/a", "sys", "a/auth", "..", "a/./b", "é", "a\nb", "a\"b", strings.Repeat("a", 1025)} {
		if got, err := grant.ParseNamespace(text); err == nil || got != "" {
			t.Errorf("%q: seen %q, %v, want an error: a wrong name must not reach a request's header", text, got, err)
		}
	}
}
