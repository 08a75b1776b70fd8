package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// regionKeys checks that Vault knows the key of the identity documents of each region: built in, or by a certificate that was written.
// Logins of type iam carry no identity document.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#list-certificate-configurations
func (d Doctor) regionKeys(ctx context.Context) finding {
	var unknown []string
	for _, region := range d.regions() {
		if !vault.HasIdentityKey(region) {
			unknown = append(unknown, region)
		}
	}
	switch {
	case !d.logsInBy("ec2"):
		return good("no profile has logins of type ec2, which carry an identity document")
	case len(unknown) == 0:
		return good("Vault has the key of the identity documents of each region built in: %s", abbreviate(d.regions()))
	}
	stored, err := d.certificates(ctx)
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	var missing, wrong, written, uncovered []string
	for _, region := range unknown {
		covers, reason := stored.cover(region)
		if covers {
			written = append(written, region)
			continue
		}
		uncovered = append(uncovered, region)
		if reason == "" {
			missing = append(missing, region)
		} else {
			wrong = append(wrong, grant.AuthConfigPath(d.AuthMount, "certificate/"+region)+" "+reason)
		}
	}
	if len(uncovered) == 0 {
		return good("Vault has a certificate for the identity documents of %s, and the keys of the other regions built in", abbreviate(written))
	}
	var faults []string
	if len(missing) > 0 {
		faults = append(faults, fmt.Sprintf("Vault does not know the key of the identity documents of %s", abbreviate(missing)))
	}
	faults = append(faults, wrong...)
	return bad(fmt.Sprintf("save the certificate that https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/regions-certs.html has under RSA, and run vault-ec2 setup with --certificate %s=<file>, for each region; "+
		"delete a wrong one first", uncovered[0]),
		"%s: no instance there can log in with its identity document", strings.Join(faults, "; "))
}

// regions returns the regions of the places, sorted.
func (d Doctor) regions() []string {
	var out []string
	for _, p := range d.Places {
		out = append(out, p.Region)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// certificates are the certificates that were written to an auth mount, by name.
type certificates map[string]map[string]any

func (d Doctor) certificates(ctx context.Context) (certificates, error) {
	names, err := d.Objects.List(ctx, grant.AuthConfigPath(d.AuthMount, "certificates"))
	if err != nil {
		return nil, err
	}
	out := certificates{}
	for _, name := range names {
		if out[name], err = d.Objects.Read(ctx, grant.AuthConfigPath(d.AuthMount, "certificate/"+name)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// cover reports whether a certificate covers a region: one with the region's name, or of any name with the key that AWS published for
// the region. Otherwise reason says what is wrong with the one of the region's name, if there is one.
func (all certificates) cover(region string) (covers bool, reason string) {
	for name, stored := range all {
		text, _ := stored["aws_public_cert"].(string)
		parsed, err := vault.ParseIdentityCertificate(text)
		isSignature := stored["type"] == "identity"
		if err == nil && isSignature && parsed.Is(region) {
			return true, ""
		}
		if name != region {
			continue
		}
		switch {
		case err != nil:
			reason = fmt.Sprintf("cannot verify the signature that Vault Agent sends: %v", err)
		case !isSignature:
			reason = fmt.Sprintf("has the type %v, which does not verify the signature that Vault Agent sends", stored["type"])
		default:
			if err = parsed.Check(region); err == nil || errors.Is(err, vault.ErrNewKey) { // it can be a key that is not known here
				return true, ""
			}
			reason = fmt.Sprintf("is not the region's: %v", err)
		}
	}
	return false, reason
}
