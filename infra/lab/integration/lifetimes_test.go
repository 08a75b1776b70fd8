package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// Vault answers the write of an auth role with a warning if the mount's max_lease_ttl is below token_max_ttl. It stores the role as
// sent, and shortens each token.
func TestCappedTokens_AreNeitherFaultNorDrift(t *testing.T) {
	vaultSet(t, "sys/auth/"+world.AuthMount+"/tune", map[string]any{"max_lease_ttl": "2h"})
	f := variant(t, provision, nil)
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, f, i, "running", "provisioned") // at the first try
	logged(t, f, "max ttl will be capped at login time")
	mustBy(t, f, i, "running", "unchanged")
	if stored := fmt.Sprint(vaultRead(t, "auth/"+world.AuthMount+"/role/"+i.ID)["token_max_ttl"]); stored != "86400" {
		t.Errorf("want the profile's token_max_ttl of 24h stored, got %s", stored)
	}
	login(t, i)
	if a := correct(t, i); len(a.Drift) > 0 {
		t.Errorf("want no drift, got %+v", a.Drift)
	}
	_, checks := examine(t, world.Functions[reconcile])
	got := checks["lifetimes of auth/"+world.AuthMount]
	if says := "vault auth tune -max-lease-ttl=24h " + world.AuthMount + "/"; !got.OK || !strings.Contains(got.Detail, says) {
		t.Errorf("want the doctor to say %q, and that it does no harm; got %+v", says, got)
	}
	remove(t, i)
}
