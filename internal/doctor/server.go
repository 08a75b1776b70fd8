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

// server tells whether Vault is there and can serve. A standby can: it hands requests on.
func (d Doctor) server(ctx context.Context) finding {
	h, err := d.Server.Health(ctx)
	switch {
	case err != nil:
		return bad("check VAULT_ADDR, VAULT_CA_SECRET_ARN and the way there: the functions' subnets and security groups", "%v", err)
	case !h.Initialized:
		return bad("initialise Vault (vault operator init)", "Vault %s is not initialised", h.Version)
	case h.Sealed:
		return bad("unseal Vault (vault operator unseal)", "Vault %s is sealed", h.Version)
	case h.DRSecondary:
		return bad("point VAULT_ADDR at the primary cluster", "Vault %s is a disaster recovery secondary and serves nobody", h.Version)
	case h.Detached:
		return bad("mend this server's connection to its cluster, or point VAULT_ADDR at a load balancer that leaves it out",
			"Vault %s is a standby that does not reach the active server", h.Version)
	case h.Standby:
		return good("Vault %s answers, initialised and unsealed; this server is a standby that hands requests on", h.Version)
	}
	return good("Vault %s answers, initialised and unsealed", h.Version)
}

// version tells what Vault's version means for the instances. It endangers nothing: what this program writes holds on
// each of them.
func (d Doctor) version(ctx context.Context) finding {
	h, err := d.Server.Health(ctx)
	if err != nil {
		return bad("see the check \"vault\"", "%v", err)
	}
	v, ok := parseVersion(h.Version)
	if !ok {
		return good("Vault calls its version %q, of which nothing is known here", h.Version)
	}
	facts := []string{"version " + h.Version}
	// https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
	if v.before(version{1, 21, 0}) {
		facts = append(facts, "up to 1.20 a list of names or addresses is compared as a whole: a client sends each value alone, or all of them in the policy's order")
	} else {
		facts = append(facts, "from 1.21 a client may ask for any of the allowed names and addresses together")
	}
	if v.ignoresMaxTTL() {
		facts = append(facts, "not_after outlives a PKI role's max_ttl (mended in 1.19.19, 1.20.13, 1.21.8 and 2.0.3): the generated policies do not let it in; see that no policy of your own does")
	} else {
		facts = append(facts, "not_after is held to a PKI role's max_ttl")
	}
	return good("%s", strings.Join(facts, "; "))
}

// login tells whether the function's own identity is let in.
func (d Doctor) login(ctx context.Context) finding {
	if err := d.Server.Login(ctx); err != nil {
		return bad(d.loginRemedy(), "%v", err)
	}
	return good("the function logs in at auth/%s", d.LoginMount)
}

func (d Doctor) loginRemedy() string {
	return "run infra/vault with -function-role reconcile=<the function's IAM role> and compare VAULT_LOGIN_ROLE, VAULT_IAM_SERVER_ID and VAULT_STS_REGION with auth/" +
		d.LoginMount + "; with approle or token renew the secret of VAULT_LOGIN_SECRET_ARN"
}

// remedyFor is what to do about a call to Vault that failed for want of a grant; or of a login: a token can end while
// the doctor is at work, or have ended before, with its auth mount for one, and only the next call finds out.
func (d Doctor) remedyFor(err error) string { return d.loginOr(err, runSetup) }

func (d Doctor) loginOr(err error, remedy string) string {
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

// ignoresMaxTTL tells whether a certificate's not_after may lie beyond its PKI role's max_ttl.
// https://github.com/hashicorp/vault/issues/29928
func (v version) ignoresMaxTTL() bool {
	for _, mended := range []version{{1, 19, 19}, {1, 20, 13}, {1, 21, 8}, {2, 0, 3}} {
		if v[0] == mended[0] && v[1] == mended[1] {
			return v.before(mended)
		}
	}
	return v.before(version{2, 0, 3})
}
