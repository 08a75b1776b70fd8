package doctor_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
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

// With stored certificates revoked, the mount must store them, make its CRL by time, and remove ended ones.
func TestDoctor_ChecksWhatRevocationNeeds(t *testing.T) {
	crl, tidy := pki+"/config/crl", pki+"/config/auto-tidy"
	for name, row := range map[string]struct {
		role   string
		change func(objects map[string]map[string]any)
		says   string // empty: it is good
	}{
		"all as it should be":       {`{"max_ttl": "24h"}`, func(map[string]map[string]any) {}, ""},
		"no CRL":                    {`{"max_ttl": "24h"}`, func(o map[string]map[string]any) { o[crl]["disable"] = true }, "disable=false"},
		"a CRL by each":             {`{"max_ttl": "24h"}`, func(o map[string]map[string]any) { o[crl]["auto_rebuild"] = false }, "auto_rebuild=true"},
		"no tidying":                {`{"max_ttl": "24h"}`, func(o map[string]map[string]any) { o[tidy]["enabled"] = false }, "tidy_cert_store=true"},
		"tidying of some":           {`{"max_ttl": "24h"}`, func(o map[string]map[string]any) { delete(o[tidy], "tidy_revoked_certs") }, "tidy_revoked_certs=true"},
		"an old server":             {`{"max_ttl": "24h"}`, func(o map[string]map[string]any) { delete(o, crl); delete(o, tidy) }, "auto_rebuild=true"},
		"a role that is not stored": {`{"max_ttl": "24h", "no_store": true}`, func(map[string]map[string]any) {}, "no_store"},
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy(t)
			w.options.Profiles = loadWith(t, row.role, "ec2", "arn:aws:iam::*:role/alice-worker")
			w.objects[crl] = map[string]any{"disable": false, "auto_rebuild": true}
			w.objects[tidy] = map[string]any{"enabled": true, "tidy_cert_store": true, "tidy_revoked_certs": true}
			row.change(w.objects)
			if slices.ContainsFunc(w.examine(t).Checks, func(c doctor.Check) bool { return c.Name == "revocation "+pki }) {
				t.Error("want no such check where stored certificates are left valid")
			}
			w.options.RevokesStored = true
			c := check(t, w.examine(t), "revocation "+pki)
			if c.OK != (row.says == "") || !strings.Contains(c.Remedy, row.says) {
				t.Errorf("want the remedy %q, got %+v", row.says, c)
			}
		})
	}
}
