package grant_test

import (
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func FuzzObjectName(f *testing.F) {
	f.Add("i-0123456789abcdef0", "node")
	f.Add("i-01234567", "a_b")
	f.Add("ec2-i-01234567", "x")
	f.Fuzz(func(t *testing.T, id, output string) {
		gotID, gotOutput, ok := grant.SplitObjectName(grant.ObjectName(id, output))
		if ok && (grant.ObjectName(gotID, gotOutput) != strings.TrimPrefix(grant.ObjectName(id, output), "ec2-")) {
			t.Errorf("the name of %q and %q splits into %q and %q", id, output, gotID, gotOutput)
		}
		if facts.IsInstanceID(id) && output != "" && strings.Trim(output, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && (!ok || gotID != id || gotOutput != output) {
			t.Errorf("the name of %q and %q splits into %q and %q (%v)", id, output, gotID, gotOutput, ok)
		}
	})
}
