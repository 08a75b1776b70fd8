package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

const (
	runSetup = "run infra/vault with the functions' own profiles and options (-templates-dir, -auth-mount, -also-path, -revoke-certificates)"
	// nobody is an instance that is not there: its objects' paths are asked about and never touched.
	nobody = "i-00000000000000000"
)

// mayWhatItMust asks whether the token can do all that the function does.
func (d Doctor) mayWhatItMust(ctx context.Context) finding {
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
		return bad(runSetup, "the function's token lacks %s", few(lacking))
	}
	return good("the function's token can do what it must at all of its %d paths", len(d.Rights))
}

// mayNoMore asks whether the token can do anything else: at its own paths, and at others that would make it more than
// it is.
func (d Doctor) mayNoMore(ctx context.Context) finding {
	outside := d.outOfBounds()
	has, err := d.Objects.Capabilities(ctx, append(d.examples(), outside...))
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	var extra []string
	for _, r := range d.Rights {
		more := slices.DeleteFunc(slices.Clone(has[r.Example()]), func(c string) bool {
			return c == "deny" || slices.Contains(r.Capabilities, c)
		})
		if len(more) > 0 {
			extra = append(extra, fmt.Sprintf("%s (%s)", r.Path, strings.Join(more, " ")))
		}
	}
	for _, path := range outside {
		if !slices.Equal(has[path], []string{"deny"}) {
			extra = append(extra, fmt.Sprintf("%s (%s)", path, strings.Join(has[path], " ")))
		}
	}
	if len(extra) > 0 {
		return bad("give the function's role at auth/"+d.LoginMount+" its own policy and no other, take its entity out of groups, then "+runSetup,
			"the function's token may do more than it must: %s", few(extra))
	}
	return good("the function's token can do nothing else at its own paths, and nothing at %d others", len(outside))
}

func (d Doctor) examples() []string {
	out := make([]string, len(d.Rights))
	for i, r := range d.Rights {
		out[i] = r.Example()
	}
	return out
}

// outOfBounds are paths the token must get nothing at, chosen for what they would open: its own policy and role, other
// policies and roles, new tokens, mounts, identities, certificates, secrets. One that a right covers is left out; but
// never the functions' own policies and roles, which a name like an instance's would put within their reach.
func (d Doctor) outOfBounds() []string {
	paths := []string{
		grant.PolicyPath("nobody"),
		grant.OldPolicyPath(grant.PolicyName(nobody, "nobody")), // the same policies by their old path
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
			paths = append(paths, grant.IssuePath(by, nobody), grant.SignPath(by, nobody))
		}
		for _, end := range []string{
			"sign-verbatim", "sign-verbatim/" + nobody, "issuer/default/sign-verbatim",
			"root/sign-intermediate", "root/sign-self-issued", "root/generate/exported", "root/generate/internal",
			"issuers/import/bundle", "keys/import", "config/issuers", "revoke", "tidy",
		} {
			paths = append(paths, mount+"/"+end)
		}
		for _, prefix := range grant.LeasePrefixes(mount, nobody) {
			paths = append(paths, grant.RevokePrefixPath(prefix))
		}
	}
	paths = slices.DeleteFunc(paths, d.covered)
	for _, name := range d.RoleNames {
		paths = append(paths, grant.PolicyPath(name), grant.AuthRolePath(d.LoginMount, name))
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func (d Doctor) covered(path string) bool {
	for _, r := range d.Rights {
		if before, wild := strings.CutSuffix(r.Path, "*"); path == r.Path || wild && strings.HasPrefix(path, before) {
			return true
		}
	}
	return false
}
