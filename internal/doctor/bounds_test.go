package doctor_test

import (
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

func TestDoctor_RootTokenIsOutOfBounds(t *testing.T) {
	w := healthy(t)
	w.examine(t)
	for _, p := range w.asked {
		w.capabilities[p] = []string{"root"}
	}
	r := w.examine(t)
	if c := check(t, r, "vault rights"); !c.OK {
		t.Errorf("root has every right: %+v", c)
	}
	if c := check(t, r, "vault bounds"); c.OK || !strings.Contains(c.Detail, "(root)") || !strings.Contains(c.Detail, "more") {
		t.Errorf("want root named as too many rights in an abbreviated list, got %+v", c)
	}
}

func TestDoctor_RevocationIsWithinBoundsWhenOn(t *testing.T) {
	w := healthy(t)
	w.options.Rights = rights.ByFunction(rights.Scope{Profiles: w.options.Profiles, AuthMount: "aws", Revoke: true})[rights.Reconcile]
	if r := w.examine(t); !r.OK {
		t.Errorf("want ok, got %+v", r)
	}
}

func TestDoctor_FindsPolicyNamedLikeAnInstances(t *testing.T) {
	w := healthy(t)
	w.options.RoleNames = []string{"ec2-i-reconcile"}
	w.capabilities["sys/policies/acl/ec2-i-reconcile"] = []string{"create", "delete", "read", "update"}
	if c := check(t, w.examine(t), "vault bounds"); c.OK || !strings.Contains(c.Detail, "ec2-i-reconcile") {
		t.Errorf("want the function's own policy named, which sys/policies/acl/ec2-i-* covers, got %+v", c)
	}
}
