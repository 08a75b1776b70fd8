package vault

import (
	"cmp"
	"regexp"
	"strconv"
)

// Product is the software of a server.
type Product string

// The products that this program knows.
const (
	HashiCorp Product = "Vault"
	OpenBao   Product = "OpenBao"
)

// Server is the software that answers at an address.
type Server struct {
	Product Product
	// Version is the server's own text: "1.21.0", "1.20.4+ent", "1.19.5+ent.hsm", and for OpenBao "2.5.5".
	Version    string
	Enterprise bool
}

// serverOf returns the server behind an answer of sys/health. enterprise is the answer's field of that name, nil if the answer
// lacks it.
//
// The number alone does not decide, since both products have a version 2.x. Every Vault from 1.16 to 1.21 answers the field
// enterprise, the Community edition too, and OpenBao up to 2.5 never does: read in the sources of both, http/sys_health.go. The
// client of Vault 2.x has the field too; its server was not read. A Vault before 1.16 may lack the field, and no OpenBao has a
// version 1.x. A proxy that rewrites the answer can hide the product.
func serverOf(version string, enterprise *bool) Server {
	if enterprise != nil {
		return Server{Product: HashiCorp, Version: version, Enterprise: *enterprise}
	}
	if v, ok := parseVersion(version); ok && v[0] >= 2 {
		return Server{Product: OpenBao, Version: version}
	}
	return Server{Product: HashiCorp, Version: version}
}

// String returns product and version, such as "Vault 1.20.4+ent".
func (s Server) String() string { return string(s.Product) + " " + s.Version }

// Standing says how much is known of this program on a server's version.
type Standing int

// The standings of a server.
const (
	// Unreadable is a version that is no version number.
	Unreadable Standing = iota
	// Unsupported is a Vault before the oldest version on which the tests ran.
	Unsupported
	// Tried is a version from the oldest to the newest minor version on which the tests ran.
	Tried
	// Untried is another version, such as a newer one than any on which the tests ran.
	Untried
)

// Standing returns the standing of the server's version. The tests ran on Community editions only: docs/vault-versions.md has
// every version on which they ran.
func (s Server) Standing() Standing {
	oldest, after := version{1, 16, 0}, version{1, 22, 0}
	if s.Product == OpenBao {
		oldest, after = version{2, 5, 0}, version{2, 6, 0}
	}
	v, ok := parseVersion(s.Version)
	switch {
	case !ok:
		return Unreadable
	case v.before(oldest) && s.Product == HashiCorp:
		return Unsupported
	case v.before(oldest), !v.before(after):
		return Untried
	}
	return Tried
}

// ComparesWholeLists reports whether a policy's allowed_parameters compare a list as a whole. Vault from 1.21 on compares each
// element, unless its environment has VAULT_LEGACY_EXACT_MATCHING_ON_LIST.
// https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
func (s Server) ComparesWholeLists() bool {
	return s.Product == OpenBao || s.isBefore(version{1, 21, 0})
}

// StoresExternalID reports whether config/sts of the AWS auth method keeps an external_id. OpenBao's AWS plugin does not; it
// has versions of its own.
func (s Server) StoresExternalID() bool {
	return s.Product == HashiCorp && !s.isBefore(version{1, 17, 0})
}

// LocksAddresses reports whether a PKI role can limit the addresses of its certificates (allowed_ip_sans_cidr) and forbid
// not_after (not_after_bound).
// https://openbao.org/api-docs/secret/pki/#create-update-role
func (s Server) LocksAddresses() bool { return s.Product == OpenBao }

// IgnoresMaxTTL reports whether a certificate's not_after may exceed its PKI role's max_ttl, if the role does not forbid it.
// https://github.com/hashicorp/vault/issues/29928
func (s Server) IgnoresMaxTTL() bool {
	v, ok := parseVersion(s.Version)
	if !ok || s.Product == OpenBao {
		return true
	}
	for _, fixed := range []version{{1, 19, 19}, {1, 20, 13}, {1, 21, 8}, {2, 0, 3}} {
		if v[0] == fixed[0] && v[1] == fixed[1] {
			return v.before(fixed)
		}
	}
	return v.before(version{2, 0, 3})
}

// RequiresPrincipals reports whether an SSH role can refuse to sign a certificate without principals (allow_empty_principals), and shows
// that it does. Vault from 1.17.6 on has the field, and answers it from 1.18.2 on.
// https://discuss.hashicorp.com/t/hcsec-2024-20-vault-ssh-secrets-engine-configuration-did-not-restrict-valid-principals-by-default/70251
// https://github.com/hashicorp/vault/pull/28901
func (s Server) RequiresPrincipals() bool {
	return s.Product == OpenBao || !s.isBefore(version{1, 18, 2})
}

// isBefore reports whether the server's version is older than o. An unreadable version is.
func (s Server) isBefore(o version) bool {
	v, ok := parseVersion(s.Version)
	return !ok || v.before(o)
}

// version is a major, a minor and a patch number.
type version [3]int

var versionForm = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)`)

// parseVersion reads 1.21.0, 1.20.4+ent and 1.19.0-rc1.
func parseVersion(text string) (version, bool) {
	parts := versionForm.FindStringSubmatch(text)
	if parts == nil {
		return version{}, false
	}
	var v version
	for i := range v {
		n, err := strconv.Atoi(parts[i+1])
		if err != nil {
			return version{}, false
		}
		v[i] = n
	}
	return v, true
}

func (v version) before(o version) bool {
	return cmp.Or(cmp.Compare(v[0], o[0]), cmp.Compare(v[1], o[1]), cmp.Compare(v[2], o[2])) < 0
}
