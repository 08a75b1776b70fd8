package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func (d Doctor) authSteps(login, own *step) []*step {
	auth := grant.AuthMountPath(d.AuthMount)
	mounted := &step{name: auth, needs: []*step{login}, look: d.authMount}
	return []*step{
		mounted,
		{name: "aliases of " + auth, needs: []*step{mounted}, look: d.aliases},
		{name: "accounts of " + auth, needs: []*step{mounted, own}, look: d.accountsOfVault},
	}
}

func (d Doctor) authMount(ctx context.Context) finding {
	auth := grant.AuthMountPath(d.AuthMount)
	data, err := d.Objects.Read(ctx, grant.MountInfoPath(auth))
	if err != nil {
		return bad(d.loginOr(err, "run infra/vault with -auth-mount "+d.AuthMount+", or set VAULT_AUTH_MOUNT to the mount there is"), "%v", err)
	}
	if kind := data["type"]; kind != "aws" {
		return bad("set VAULT_AUTH_MOUNT to a mount of type aws", "%s is of type %v", auth, kind)
	}
	return good("%s is of type aws", auth)
}

// aliases judges what names a login's identity. Removal cuts live tokens by the entity behind the alias, so the alias
// must be one instance's alone, and one the program knows.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#configure-identity-integration
func (d Doctor) aliases(ctx context.Context) finding {
	path := grant.AuthConfigPath(d.AuthMount, "identity")
	data, err := d.Objects.Read(ctx, path)
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	ec2, iam := fmt.Sprint(data["ec2_alias"]), fmt.Sprint(data["iam_alias"])
	found := fmt.Sprintf("ec2_alias is %s, iam_alias is %s", ec2, iam)
	var shared []string
	if d.logsInBy("ec2") && ec2 != "instance_id" && ec2 != "role_id" {
		shared = append(shared, "ec2_alias="+ec2)
	}
	if d.logsInBy("iam") && iam != "role_id" {
		shared = append(shared, "iam_alias="+iam)
	}
	if len(shared) > 0 {
		return bad("write ec2_alias=instance_id iam_alias=role_id to "+path+" (infra/vault -set-alias), or use another mount if others log in on this one",
			"%s: with %s several instances share one identity, or one the program does not know: a removal cannot cut an instance's tokens, and is not done until their longest life is over",
			found, strings.Join(shared, " and "))
	}
	if d.logsInBy("ec2") && !listed(data["ec2_metadata"], "instance_id") || d.logsInBy("iam") && !listed(data["iam_metadata"], "inferred_entity_id") {
		found += "; the metadata of an alias does not name the instance (infra/vault -set-alias has it do so)"
	}
	if d.logsInBy("iam") || d.logsInBy("ec2") && ec2 == "role_id" {
		found += "; by role_id reconcile cannot find the entities of gone instances whose ledger record is gone as well"
	}
	return good("%s", found)
}

// listed reports whether a list of Vault's has a value.
func listed(list any, value string) bool {
	all, _ := list.([]any)
	return slices.Contains(all, any(value))
}

func (d Doctor) logsInBy(kind string) bool {
	for _, p := range d.Profiles.Profiles {
		if p.Auth.Type == kind {
			return true
		}
	}
	return false
}

// accountsOfVault tells whether Vault has a role to look at the instances of each account by: it asks EC2 at every login.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#list-sts-roles
func (d Doctor) accountsOfVault(ctx context.Context) finding {
	own, err := d.AWS.Account(ctx)
	if err != nil {
		return bad("see the check \"aws identity\"", "%v", err)
	}
	foreign := slices.DeleteFunc(d.accounts(), func(a string) bool { return a == "" || a == own })
	if len(foreign) == 0 {
		return good("no account but the function's own, %s: Vault looks at its instances by its own AWS identity", own)
	}
	known, err := d.Objects.List(ctx, grant.AuthConfigPath(d.AuthMount, "sts"))
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	missing := slices.DeleteFunc(slices.Clone(foreign), func(a string) bool { return slices.Contains(known, a) })
	if len(missing) > 0 {
		return bad(fmt.Sprintf("run infra/vault with -sts-role %s=<a role there that Vault may assume>, for each", missing[0]),
			"Vault has no role for %s: no instance there can log in", few(missing))
	}
	return good("Vault has a role for each account but the function's own: %s", few(foreign))
}

func (d Doctor) pkiSteps(login *step) []*step {
	var steps []*step
	for _, mount := range d.Profiles.PKIMounts() {
		mounted := &step{name: "pki " + mount, needs: []*step{login}, look: func(ctx context.Context) finding { return d.pki(ctx, mount) }}
		on := func(name string, look func(context.Context, string) finding) *step {
			return &step{name: name + " " + mount, needs: []*step{mounted}, look: func(ctx context.Context) finding { return look(ctx, mount) }}
		}
		steps = append(steps, mounted, on("acme", d.acme), on("pki owner", d.owner), on("pki roles", d.pkiRoles))
	}
	return steps
}

// pki tells whether a mount can issue.
func (d Doctor) pki(ctx context.Context, mount string) finding {
	const remedy = "mount a PKI engine there and give it an issuer (infra/vault -pki makes one with a root of its own)"
	data, hidden := d.Objects.Read(ctx, grant.MountInfoPath(mount))
	if kind := data["type"]; hidden == nil && kind != "pki" {
		return bad("mount a PKI engine there, or change the profiles' base_path and path", "%s is of type %v", mount, kind)
	}
	issuers, err := d.Objects.List(ctx, mount+"/issuers")
	switch {
	case err != nil:
		// Anybody may list them, so this is no missing grant.
		return bad(d.loginOr(err, remedy), "%s is no PKI engine that answers: %v", mount, err)
	case len(issuers) == 0:
		return bad(remedy, "%s has no issuer: no instance gets a certificate", mount)
	case hidden != nil:
		return good("%s lists %d issuers; its type could not be seen: %v", mount, len(issuers), hidden)
	}
	return good("%s is a PKI engine; issuers: %d", mount, len(issuers))
}

// acme tells whether a door stands open beside the policies: ACME asks for no token, so no policy applies to it, and by
// default it issues from every role.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#acme-certificate-issuance
func (d Doctor) acme(ctx context.Context, mount string) finding {
	path := mount + "/config/acme"
	data, err := d.Objects.Read(ctx, path)
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	if data == nil {
		return good("this Vault knows no ACME on %s", mount)
	}
	enabled, known := data["enabled"].(bool)
	if !known {
		return bad("look at "+path+" by hand", "%s does not say whether ACME is enabled", path)
	}
	if enabled {
		return bad("vault write "+path+" enabled=false",
			"ACME is enabled on %s: it needs no token, so no policy applies to it, and it issues from the roles %v (all of them by default)", mount, data["allowed_roles"])
	}
	return good("ACME is off on %s", mount)
}
