package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

const (
	runSetup = "run vault-ec2 setup with the functions' own profiles and options (--templates-dir, --auth-mount, --also-path, --revoke-certificates)"
	// noInstance is the ID of an instance that does not exist. Its objects' paths are only asked about.
	noInstance = "i-00000000000000000"
)

// hasRights checks that the token has every right that the function needs.
func (d Doctor) hasRights(ctx context.Context) finding {
	has, err := d.Objects.Capabilities(ctx, d.examples())
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	var lacking []string
	for _, r := range d.Rights {
		var missing []string
		for _, c := range r.Capabilities {
			if here := has[r.Example()]; !slices.Contains(here, c) && !slices.Contains(here, "root") {
				missing = append(missing, c)
			}
		}
		if len(missing) > 0 {
			lacking = append(lacking, fmt.Sprintf("%s (%s)", r.Path, strings.Join(missing, " ")))
		}
	}
	if len(lacking) > 0 {
		return bad(runSetup, "reconcile's token lacks %s", abbreviate(lacking))
	}
	return good("reconcile's token has its rights at all of its %d paths; provision and deprovision have others, which only they see", len(d.Rights))
}

// hasOnlyRights checks that the token has no other rights: at its own paths, and at paths that would give it more power.
func (d Doctor) hasOnlyRights(ctx context.Context) finding {
	outside := d.outOfBounds()
	has, err := d.Objects.Capabilities(ctx, append(d.examples(), outside...))
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	var excess []string
	for _, r := range d.Rights {
		more := slices.DeleteFunc(slices.Clone(has[r.Example()]), func(c string) bool {
			return c == "deny" || slices.Contains(r.Capabilities, c)
		})
		if len(more) > 0 {
			excess = append(excess, fmt.Sprintf("%s (%s)", r.Path, strings.Join(more, " ")))
		}
	}
	for _, path := range outside {
		if !slices.Equal(has[path], []string{"deny"}) {
			excess = append(excess, fmt.Sprintf("%s (%s)", path, strings.Join(has[path], " ")))
		}
	}
	if len(excess) > 0 {
		return bad("give the function's role at auth/"+d.LoginMount+" its own policy and no other, remove its entity from groups, then "+runSetup,
			"reconcile's token has more rights than it needs: %s", abbreviate(excess))
	}
	return good("reconcile's token has no other rights at its own paths, and none at %d other paths", len(outside))
}

// examples returns a path for each right.
func (d Doctor) examples() []string {
	out := make([]string, len(d.Rights))
	for i, r := range d.Rights {
		out[i] = r.Example()
	}
	return out
}

// outOfBounds returns paths at which the token must have no rights because they give power: its own policy and role, other
// policies and roles, new tokens, mounts, identities, certificates, secrets. It leaves out paths that a right covers, but never
// the functions' own policies and roles: with a name like an instance's, a right would cover them.
func (d Doctor) outOfBounds() []string {
	paths := []string{
		grant.PolicyPath("nobody"),
		grant.OldPolicyPath(grant.PolicyName(noInstance, "nobody")), // the old path of the same policies
		"sys/auth/nobody", "sys/mounts/nobody", "sys/audit/nobody", "sys/raw/nobody", "sys/remount",
		grant.RevokePrefixPath("nobody"), "sys/leases/revoke-force/nobody", "sys/seal", "sys/step-down",
		grant.AuthConfigPath(d.AuthMount, "client"), grant.AuthConfigPath(d.AuthMount, "sts/000000000000"), grant.AuthRolePath(d.AuthMount, "nobody"),
		"auth/token/create", "auth/token/create-orphan", "auth/token/roles/nobody", "auth/token/accessors",
		"identity/entity", "identity/entity/merge", "identity/entity-alias", "identity/group", "identity/oidc/key/nobody",
		"secret/nobody", "secret/data/nobody",
	}
	for _, mount := range d.Profiles.PKIMounts() {
		paths = append(paths, grant.PKIRolePath(mount, "nobody"))
		for _, by := range []string{mount, mount + "/issuer/default"} {
			paths = append(paths, grant.IssuePath(by, noInstance), grant.SignPath(by, noInstance))
		}
		for _, end := range []string{
			"sign-verbatim", "sign-verbatim/" + noInstance, "issuer/default/sign-verbatim",
			"root/sign-intermediate", "root/sign-self-issued", "root/generate/exported", "root/generate/internal",
			"issuers/import/bundle", "keys/import", "config/issuers", "revoke", "tidy",
		} {
			paths = append(paths, mount+"/"+end)
		}
		for _, prefix := range grant.LeasePrefixes(mount, noInstance) {
			paths = append(paths, grant.RevokePrefixPath(prefix))
		}
	}
	for _, mount := range d.Profiles.Mounts().SSH {
		paths = append(paths, grant.PKIRolePath(mount, "nobody"), grant.IssuePath(mount, noInstance), grant.SignPath(mount, noInstance),
			mount+"/creds/"+noInstance, mount+"/config/zeroaddress")
	}
	paths = slices.DeleteFunc(paths, d.covered)
	for _, name := range d.RoleNames {
		paths = append(paths, grant.PolicyPath(name), grant.AuthRolePath(d.LoginMount, name))
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// covered reports whether a right covers path.
func (d Doctor) covered(path string) bool {
	for _, r := range d.Rights {
		if prefix, wild := strings.CutSuffix(r.Path, "*"); path == r.Path || (wild && strings.HasPrefix(path, prefix)) {
			return true
		}
	}
	return false
}
