package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// server checks that Vault answers and can serve requests. A standby can: it forwards them.
func (d Doctor) server(ctx context.Context) finding {
	h, err := d.Server.Health(ctx)
	switch {
	case err != nil:
		return bad("check VAULT_ADDR, VAULT_CA_SECRET_ARN, and the network path: the functions' subnets and security groups", "%v", err)
	case !h.Initialized:
		return bad("initialise Vault (vault operator init)", "%s is not initialised", h.Server)
	case h.Sealed:
		return bad("unseal Vault (vault operator unseal)", "%s is sealed", h.Server)
	case h.DRSecondary:
		return bad("point VAULT_ADDR at the primary cluster", "%s is a disaster recovery secondary and serves no requests", h.Server)
	case h.Detached:
		return bad("restore this server's connection to its cluster, or point VAULT_ADDR at a load balancer that excludes it",
			"%s is a standby that does not reach the active server", h.Server)
	case h.Standby:
		return good("%s answers, initialised and unsealed; this server is a standby that forwards requests", h.Server)
	}
	return good("%s answers, initialised and unsealed", h.Server)
}

// version reports what the server and its version mean for the instances. It fails only for a Vault that is older than the
// oldest supported version: this program's objects are safe on every other server that is known.
func (d Doctor) version(ctx context.Context) finding {
	h, err := d.Server.Health(ctx)
	if err != nil {
		return bad("see the check \"vault\"", "%v", err)
	}
	server := h.Server
	facts := []string{server.String()}
	switch server.Standing() {
	case vault.Unreadable:
		return good("the server's version is %q, about which the doctor knows nothing", server.Version)
	case vault.Unsupported:
		return bad("upgrade Vault to 1.16 or later: docs/vault-versions.md has the versions on which the tests ran",
			"%s is older than 1.16, the oldest supported version", server)
	case vault.Untried:
		facts = append(facts, "the tests never ran on this version (docs/vault-versions.md has those on which they did)")
	case vault.Tried:
	}
	return good("%s", strings.Join(append(facts, consequences(server)...), "; "))
}

// consequences returns what a server's product and version mean for the instances.
func consequences(server vault.Server) []string {
	var facts []string
	if server.Product == vault.OpenBao {
		facts = append(facts, "OpenBao is not a supported server: the tests ran on OpenBao 2.5, where no attack succeeded")
	}
	if server.ComparesWholeLists() {
		facts = append(facts, "a list of names or addresses is compared as a whole: docs/profiles.md has the forms that a client may send")
	} else {
		facts = append(facts, "a client may ask for any of the allowed names and addresses together")
	}
	if !server.StoresExternalID() {
		facts = append(facts, "config/sts has no external_id, so Vault's role in another account must not require one")
	}
	switch {
	case server.LocksAddresses():
		return append(facts, "PKI roles lock addresses and not_after too; a request with an empty not_after is refused")
	case server.IgnoresMaxTTL():
		return append(facts, "not_after may exceed a PKI role's max_ttl (fixed in 1.19.19, 1.20.13, 1.21.8 and 2.0.3): the generated policies do not allow it; check that no policy of your own does")
	}
	return append(facts, "not_after is limited to a PKI role's max_ttl")
}

// namespace checks that the server acts in the deployment's namespace. In the root namespace of a server that ignores namespaces, the
// checks after this one would examine another deployment's objects, or none.
func (d Doctor) namespace(ctx context.Context) finding {
	if d.Namespace == "" {
		return good("VAULT_NAMESPACE is not set: the functions act in the root namespace")
	}
	err := d.Server.CheckNamespace(ctx)
	switch {
	case errors.Is(err, vault.ErrNamespacesIgnored):
		return bad("unset VAULT_NAMESPACE (VaultNamespace), or point VAULT_ADDR at a server with namespaces: Vault Enterprise, HCP Vault or OpenBao", "%v", err)
	case errors.Is(err, vault.ErrNoNamespace):
		return bad("correct VAULT_NAMESPACE (VaultNamespace), or create the namespace (vault namespace create) and run vault-ec2 setup with VAULT_NAMESPACE="+d.Namespace, "%v", err)
	case err != nil:
		return bad("see the check \"vault\"", "%v", err)
	}
	return good("the functions act in the namespace %s, and all paths are relative to it", d.Namespace)
}

// login checks that Vault accepts the function's own login.
func (d Doctor) login(ctx context.Context) finding {
	if err := d.Server.Login(ctx); err != nil {
		return bad(d.loginRemedy(), "%v", err)
	}
	return good("reconcile logs in at auth/%s", d.LoginMount)
}

// inNamespace returns how a remedy's command gets the namespace; empty for the root one.
func (d Doctor) inNamespace() string {
	if d.Namespace == "" {
		return ""
	}
	return " (VAULT_NAMESPACE=" + d.Namespace + ")"
}

func (d Doctor) loginRemedy() string {
	return "run vault-ec2 setup" + d.inNamespace() + " with --function-role reconcile=<the function's IAM role> and compare VAULT_LOGIN_ROLE, VAULT_IAM_SERVER_ID and VAULT_STS_REGION with auth/" +
		d.LoginMount + "; with approle or token, renew the secret of VAULT_LOGIN_SECRET_ARN"
}

// remedyFor returns the remedy for a call to Vault that failed because a right is missing. The call may also have failed at the
// login: a token can end at any time, for example with its auth mount, and only the next call shows that.
func (d Doctor) remedyFor(err error) string { return d.remedyOr(err, runSetup) }

// remedyOr returns the remedy for a failed login if err is one, otherwise remedy.
func (d Doctor) remedyOr(err error, remedy string) string {
	if errors.Is(err, vault.ErrLogin) {
		return d.loginRemedy()
	}
	return remedy
}

// remedyIn returns the remedy for a call to Vault that failed in a folder of a profile's output, PKI roles or other objects. The
// set-up mounts no engine but PKI.
func (d Doctor) remedyIn(err error, folder string) string {
	mount, _ := grant.SplitPKIRoleFolder(folder)
	switch {
	case !errors.Is(err, vault.ErrNotMounted):
		return d.remedyFor(err)
	case slices.Contains(d.Profiles.PKIMounts(), mount):
		return "mount a PKI engine at " + mount + " (vault-ec2 setup --pki does), or correct base_path and path in the profile"
	case slices.Contains(d.Profiles.Mounts().SSH, mount):
		return "mount an SSH engine at " + mount + " with a CA (vault-ec2 setup --pki does both), or correct base_path and path in the profile"
	}
	return "mount the engine of " + folder + " (vault secrets enable -path=<mount> <type>), or correct base_path and path of that output in the profile: vault-ec2 setup mounts PKI and SSH engines for roles only"
}
