package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

func (d Doctor) authSteps(login, own *step) []*step {
	auth := grant.AuthMountPath(d.AuthMount)
	mounted := &step{name: auth, needs: []*step{login}, check: d.authMount}
	steps := []*step{
		mounted,
		{name: "lifetimes of " + auth, needs: []*step{mounted}, check: d.tokenLifetimes},
		{name: "aliases of " + auth, needs: []*step{mounted}, check: d.aliases},
		{name: "certificates of " + auth, needs: []*step{mounted}, check: d.regionKeys},
		{name: "accounts of " + auth, needs: []*step{mounted, own}, check: d.accountsOfVault},
	}
	if d.bindsAddresses() {
		steps = append(steps, &step{name: "client addresses of " + auth, needs: []*step{mounted}, check: d.clientAddresses})
	}
	return steps
}

func (d Doctor) authMount(ctx context.Context) finding {
	auth := grant.AuthMountPath(d.AuthMount)
	data, err := d.Objects.Read(ctx, grant.MountInfoPath(auth))
	if err != nil {
		return bad(d.remedyOr(err, "run vault-ec2 setup with --auth-mount "+d.AuthMount+", or set VAULT_AUTH_MOUNT to an existing mount"), "%v", err)
	}
	if kind := data["type"]; kind != "aws" {
		return bad("set VAULT_AUTH_MOUNT to a mount of type aws", "%s is of type %v", auth, kind)
	}
	return good("%s is of type aws", auth)
}

// tokenLifetimes names the profiles whose tokens the auth mount ends early, which does no harm.
func (d Doctor) tokenLifetimes(ctx context.Context) finding {
	shown, err := d.Objects.Read(ctx, grant.MountInfoPath(grant.AuthMountPath(d.AuthMount)))
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	limit := grant.MountLimit(shown)
	if limit == 0 {
		return good("%s does not show its max_lease_ttl", grant.AuthMountPath(d.AuthMount))
	}
	if capped, is := d.Profiles.CapTokens(limit); is {
		return good("%s", capped.OnTokens(d.AuthMount))
	}
	return good("max_lease_ttl is %s: it shortens no token_max_ttl", grant.Short(limit))
}

// aliases checks the alias settings of the auth mount. A removal cuts live tokens by the entity behind the alias, so each alias
// must belong to one instance, and this program must know it.
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
		return bad("write ec2_alias=instance_id iam_alias=role_id to "+path+" (vault-ec2 setup --set-alias), or use another mount if others log in on this one",
			"%s: with %s several instances share one identity, or have one that this program does not know: a removal cannot cut an instance's tokens and stays undone until their longest lifetime has passed",
			found, strings.Join(shared, " and "))
	}
	ec2Unnamed := d.logsInBy("ec2") && !listed(data["ec2_metadata"], "instance_id")
	iamUnnamed := d.logsInBy("iam") && !listed(data["iam_metadata"], "inferred_entity_id")
	if ec2Unnamed || iamUnnamed {
		found += "; the metadata of an alias does not name the instance (vault-ec2 setup --set-alias changes that)"
	}
	if d.logsInBy("iam") || (d.logsInBy("ec2") && ec2 == "role_id") {
		found += "; with role_id, reconcile cannot find the entities of gone instances without a ledger record"
	}
	return good("%s", found)
}

// listed reports whether a list in Vault's answer contains a value.
func listed(list any, value string) bool {
	all, _ := list.([]any)
	return slices.Contains(all, any(value))
}

// logsInBy reports whether some profile has this auth type.
func (d Doctor) logsInBy(kind string) bool {
	for _, p := range d.Profiles.Profiles {
		if p.Auth.Type == kind {
			return true
		}
	}
	return false
}

// accountsOfVault checks that Vault can look at the instances of each account: it asks EC2 about an instance at every login, in its own
// account by its own AWS identity and in any other through a role. Nothing shows which account is Vault's own. Where no account is
// named for the functions' own, the check is OK and names the condition, since most Vaults run beside their functions.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#list-sts-roles
func (d Doctor) accountsOfVault(ctx context.Context) finding {
	own, err := d.AWS.Account(ctx)
	if err != nil {
		return bad("see the check \"aws identity\"", "%v", err)
	}
	known, err := d.Objects.List(ctx, grant.AuthConfigPath(d.AuthMount, "sts"))
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	var missing, named []string
	hasOwn := slices.Contains(known, own)
	for _, account := range d.accounts() {
		switch {
		case account == "" || account == own:
		case slices.Contains(known, account):
			named = append(named, account)
		default:
			missing = append(missing, account)
		}
	}
	if len(missing) > 0 {
		return bad(fmt.Sprintf("run vault-ec2 setup with --sts-role %s=<a role there that Vault may assume>, for each account", missing[0]),
			"Vault has no role for %s: no instance there can log in, unless Vault itself runs there", abbreviate(missing))
	}
	if hasOwn {
		return good("Vault has a role for each account, the functions' own among them: %s", abbreviate(append([]string{own}, named...)))
	}
	condition := fmt.Sprintf("Vault has no role for %s, the functions' own account: that is right if Vault runs in %s. If it does not, no instance of %s can log in: "+
		"run vault-ec2 setup with --sts-role %s=<a role there that Vault may assume> (docs/accounts.md)", own, own, own, own)
	if len(named) == 0 {
		return good("%s", condition)
	}
	return good("Vault has a role for %s; %s", abbreviate(named), condition)
}

// checksOf returns a function that makes the steps of a mount which need the one that found it mounted.
func checksOf(mount string, mounted *step) func(name string, check func(context.Context, string) finding) *step {
	return func(name string, check func(context.Context, string) finding) *step {
		return &step{name: name + " " + mount, needs: []*step{mounted}, check: func(ctx context.Context) finding { return check(ctx, mount) }}
	}
}

func (d Doctor) pkiSteps(login *step) []*step {
	var steps []*step
	for _, mount := range d.Profiles.PKIMounts() {
		mounted := &step{name: "pki " + mount, needs: []*step{login}, check: func(ctx context.Context) finding { return d.pki(ctx, mount) }}
		checkOf := checksOf(mount, mounted)
		steps = append(steps, mounted, checkOf("issuers", d.issuers), checkOf("acme", d.acme), checkOf("pki owner", d.mountOwner), checkOf("pki roles", d.roles))
		if d.RevokesStored {
			steps = append(steps, checkOf("revocation", d.revocation))
		}
		if d.Profiles.HasLeases(mount) {
			steps = append(steps, checkOf("leases", d.leases))
		}
	}
	return steps
}

// pki checks that a PKI mount can issue certificates, by the issuers that the profiles' roles name.
func (d Doctor) pki(ctx context.Context, mount string) finding {
	const remedy = "mount a PKI engine there and create an issuer (vault-ec2 setup --pki does both, with a root of its own)"
	data, hidden := d.Objects.Read(ctx, grant.MountInfoPath(mount))
	if kind := data["type"]; hidden == nil && kind != "pki" {
		return bad("mount a PKI engine there, or change the profiles' base_path and path", "%s is of type %v", mount, kind)
	}
	issuers, err := d.Objects.Issuers(ctx, mount)
	switch {
	case err != nil:
		// Every token may list issuers, so no right is missing.
		return bad(d.remedyOr(err, remedy), "%s does not answer as a PKI engine: %v", mount, err)
	case len(issuers) == 0:
		return bad(remedy, "%s has no issuer: no instance gets a certificate", mount)
	}
	if missing := missingIssuers(d.Profiles.IssuerRefs(mount), issuers); len(missing) > 0 {
		return bad("write the name or ID of one of the mount's issuers as issuer_ref in the roles' templates, or make such an issuer; the default one is set by: vault write "+mount+"/config/issuers default=<name>",
			"%s has issuers, but not %s: Vault stores their roles with a warning, and issues no certificate by them", mount, strings.Join(missing, "; "))
	}
	if hidden != nil {
		return good("%s has %d issuers; its type could not be read: %v", mount, len(issuers), hidden)
	}
	return good("%s is a PKI engine with %d issuers", mount, len(issuers))
}

// missingIssuers returns the issuers that roles name and that a mount lacks, each with the profiles of the roles, sorted.
func missingIssuers(named map[string][]string, issuers []vault.Issuer) []string {
	var missing []string
	for _, ref := range slices.Sorted(maps.Keys(named)) {
		exists := slices.ContainsFunc(issuers, func(i vault.Issuer) bool {
			if ref == grant.DefaultIssuer {
				return i.IsDefault == nil || *i.IsDefault
			}
			return i.ID == ref || i.Name == ref
		})
		if !exists {
			missing = append(missing, fmt.Sprintf("%q, which %s uses", ref, abbreviate(named[ref])))
		}
	}
	return missing
}

// issuers checks that no issuer that the profiles' roles name has ended: only the instances see Vault's error. Every token may read an
// issuer's certificate: https://developer.hashicorp.com/vault/api-docs/secret/pki#read-issuer-certificate
func (d Doctor) issuers(ctx context.Context, mount string) finding {
	named := d.Profiles.IssuerRefs(mount)
	var ended, ends []string
	for _, ref := range slices.Sorted(maps.Keys(named)) {
		end, err := d.endOfIssuer(ctx, mount, ref)
		switch {
		case err != nil:
			ends = append(ends, fmt.Sprintf("the end of %q is not known: %v", ref, err))
		case time.Now().After(end):
			ended = append(ended, fmt.Sprintf("%q, which %s uses, ended on %s", ref, abbreviate(named[ref]), end.UTC().Format(time.RFC3339)))
		default:
			ends = append(ends, fmt.Sprintf("%q ends on %s", ref, end.UTC().Format(time.RFC3339)))
		}
	}
	if len(ended) > 0 {
		return bad("make a new issuer of the mount, and make it the default one: vault write "+mount+"/config/issuers default=<name>; or name it as issuer_ref in the roles' templates",
			"%s: %s: Vault issues no certificate by it", mount, strings.Join(ended, "; "))
	}
	if len(ends) == 0 {
		return good("only the instances say which issuers of %s their roles use", mount)
	}
	return good("%s: %s", mount, strings.Join(ends, "; "))
}

// endOfIssuer returns the time at which an issuer's certificate ends.
func (d Doctor) endOfIssuer(ctx context.Context, mount, ref string) (time.Time, error) {
	data, err := d.Objects.Read(ctx, mount+"/issuer/"+ref+"/json")
	if err != nil {
		return time.Time{}, err
	}
	block, _ := pem.Decode([]byte(fmt.Sprint(data["certificate"])))
	if block == nil {
		return time.Time{}, errors.New("the answer has no certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading its certificate: %w", err)
	}
	return certificate.NotAfter, nil
}

// acme checks that ACME is disabled on a PKI mount: it needs no token, so no policy restricts it, and by default it issues from
// every role.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#acme-certificate-issuance
func (d Doctor) acme(ctx context.Context, mount string) finding {
	path := mount + "/config/acme"
	data, err := d.Objects.Read(ctx, path)
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	if data == nil {
		return good("this Vault has no ACME on %s", mount)
	}
	enabled, isBool := data["enabled"].(bool)
	if !isBool {
		return bad("check "+path+" by hand", "%s does not say whether ACME is enabled", path)
	}
	if enabled {
		return bad("vault write "+path+" enabled=false",
			"ACME is enabled on %s: it needs no token, so no policy applies to it, and it issues from the roles %v (all of them by default)", mount, data["allowed_roles"])
	}
	return good("ACME is disabled on %s", mount)
}

// leases checks that no certificate is revoked by the end of its lease while it is in use.
func (d Doctor) leases(ctx context.Context, mount string) finding {
	shown, err := d.Objects.Read(ctx, grant.MountInfoPath(mount))
	if err != nil {
		return good("not checked: %v", err)
	}
	limit := grant.MountLimit(shown)
	if limit == 0 {
		return good("%s does not show its max_lease_ttl", mount)
	}
	if capped, is := d.Profiles.CapLeases(mount, limit); is {
		return bad(capped.LeaseRemedy(mount), "%s", capped.OnLeases(mount))
	}
	return good("max_lease_ttl is %s: no leased certificate is revoked before its end", grant.Short(limit))
}
