package doctor

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// server checks that Vault answers and can serve requests. A standby can: it forwards them.
func (d Doctor) server(ctx context.Context) finding {
	h, err := d.Server.Health(ctx)
	switch {
	case err != nil:
		return bad("check VAULT_ADDR, VAULT_CA_SECRET_ARN, and the network path: the functions' subnets and security groups", "%v", err)
	case !h.Initialized:
		return bad("initialise Vault (vault operator init)", "Vault %s is not initialised", h.Version)
	case h.Sealed:
		return bad("unseal Vault (vault operator unseal)", "Vault %s is sealed", h.Version)
	case h.DRSecondary:
		return bad("point VAULT_ADDR at the primary cluster", "Vault %s is a disaster recovery secondary and serves no requests", h.Version)
	case h.Detached:
		return bad("restore this server's connection to its cluster, or point VAULT_ADDR at a load balancer that excludes it",
			"Vault %s is a standby that does not reach the active server", h.Version)
	case h.Standby:
		return good("Vault %s answers, initialised and unsealed; this server is a standby that forwards requests", h.Version)
	}
	return good("Vault %s answers, initialised and unsealed", h.Version)
}

// version reports what Vault's version means for the instances. It is always OK: this program's objects are safe on every
// version.
func (d Doctor) version(ctx context.Context) finding {
	h, err := d.Server.Health(ctx)
	if err != nil {
		return bad("see the check \"vault\"", "%v", err)
	}
	v, ok := parseVersion(h.Version)
	if !ok {
		return good("Vault's version is %q, about which the doctor knows nothing", h.Version)
	}
	facts := []string{"version " + h.Version}
	// https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
	if v.before(version{1, 21, 0}) {
		facts = append(facts, "up to 1.20 a list of names or addresses is compared as a whole: a client asks for one value, or for all in the policy's order")
	} else {
		facts = append(facts, "from 1.21 a client may ask for any of the allowed names and addresses together")
	}
	if v.ignoresMaxTTL() {
		facts = append(facts, "not_after may exceed a PKI role's max_ttl (fixed in 1.19.19, 1.20.13, 1.21.8 and 2.0.3): the generated policies do not allow it; check that no policy of your own does")
	} else {
		facts = append(facts, "not_after is limited to a PKI role's max_ttl")
	}
	return good("%s", strings.Join(facts, "; "))
}

// login checks that Vault accepts the function's own login.
func (d Doctor) login(ctx context.Context) finding {
	if err := d.Server.Login(ctx); err != nil {
		return bad(d.loginRemedy(), "%v", err)
	}
	return good("the function logs in at auth/%s", d.LoginMount)
}

func (d Doctor) loginRemedy() string {
	return "run infra/vault with -function-role reconcile=<the function's IAM role> and compare VAULT_LOGIN_ROLE, VAULT_IAM_SERVER_ID and VAULT_STS_REGION with auth/" +
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

// ignoresMaxTTL reports whether a certificate's not_after may exceed its PKI role's max_ttl.
// https://github.com/hashicorp/vault/issues/29928
func (v version) ignoresMaxTTL() bool {
	for _, fixed := range []version{{1, 19, 19}, {1, 20, 13}, {1, 21, 8}, {2, 0, 3}} {
		if v[0] == fixed[0] && v[1] == fixed[1] {
			return v.before(fixed)
		}
	}
	return v.before(version{2, 0, 3})
}
