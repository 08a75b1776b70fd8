package doctor

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// With bind_token_to_instance_ip Vault compares the address of each login with the instance's own. No answer of Vault shows the address
// that it sees, and a probe would need the right to make tokens. So this check goes by the logins that succeeded, and names what is
// known to stand between.

const (
	addressPage = "infra/instance/README.md, When a login is refused with 403"
	// maxProofs is the number of auth roles that are read in search of a login that succeeded.
	maxProofs = 20
	// dnsTimeout bounds the look-up of Vault's name.
	dnsTimeout = 3 * time.Second
)

// clientAddresses says whether Vault sees the instances' own addresses, as far as that is known.
func (d Doctor) clientAddresses(ctx context.Context) finding {
	bound, loggedIn, err := d.boundLogins(ctx)
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	front := d.front(ctx)
	if loggedIn != "" {
		return good("instance %s, whose login is bound to its addresses, has logged in: Vault saw its own address then%s", loggedIn, front)
	}
	return good("profiles bind tokens to the instance's addresses (bind_token_to_instance_ip): Vault must see these. At least %d auth roles are bound so, and no login of theirs is known%s. "+
		"Behind a load balancer, PrivateLink or a NAT each login is a 403 until Vault is set up for it: %s", bound, front, addressPage)
}

// boundLogins returns the number of auth roles that are bound to addresses, and one instance with such a role that has logged in. Vault makes
// an instance's accesslist entry at a login of type ec2, after it has compared the address. It reads at most maxProofs roles.
// https://github.com/hashicorp/vault/blob/v1.21.4/builtin/credential/aws/path_login.go
func (d Doctor) boundLogins(ctx context.Context) (bound int, loggedIn string, err error) {
	entries, err := d.Objects.List(ctx, grant.AccessListFolder(d.AuthMount))
	if err != nil {
		return 0, "", err
	}
	hasEntry := map[string]bool{}
	for _, id := range entries {
		hasEntry[id] = true
	}
	roles, err := d.Objects.List(ctx, grant.AuthRoleFolder(d.AuthMount))
	if err != nil {
		return 0, "", err
	}
	read := map[bool]int{} // by whether the instance has logged in
	for _, id := range roles {
		if !facts.IsInstanceID(id) || read[hasEntry[id]] == maxProofs {
			continue
		}
		read[hasEntry[id]]++
		role, err := d.Objects.Read(ctx, grant.AuthRolePath(d.AuthMount, id))
		if err != nil {
			return 0, "", err
		}
		list, _ := role["token_bound_cidrs"].([]any)
		switch {
		case len(list) == 0:
		case hasEntry[id]:
			return bound, id, nil
		default:
			bound++
		}
	}
	return bound, "", nil
}

// bindsAddresses reports whether a profile binds tokens to the instances' addresses.
func (d Doctor) bindsAddresses() bool {
	for _, p := range d.Profiles.Profiles {
		if p.Auth.BindTokenToInstanceIP {
			return true
		}
	}
	return false
}

// frontName is a form of the names of AWS's load balancers and endpoints.
type frontName struct {
	form *regexp.Regexp
	is   string
}

// frontNames returns the forms that are known.
// https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/what-is-load-balancing.html
func frontNames() []frontName {
	return []frontName{
		{regexp.MustCompile(`\.elb\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$`), "a Network Load Balancer, which can hide them"},
		{regexp.MustCompile(`\.elb\.amazonaws\.com(\.cn)?$`), "an Application or Classic Load Balancer, which hides them unless it passes them on"},
		{regexp.MustCompile(`\.vpce\.amazonaws\.com(\.cn)?$`), "a PrivateLink endpoint, which hides them unless the proxy protocol passes them on"},
		{regexp.MustCompile(`\.awsglobalaccelerator\.com$`), "a Global Accelerator, which can hide them"},
		{regexp.MustCompile(`\.cloudfront\.net$`), "a CloudFront distribution, which hides them"},
	}
}

// front returns what Vault's name leads to, as the end of a clause; empty if that is not known to stand between. A Route 53 alias shows no
// other name, and the instances can have another name for Vault than the functions.
func (d Doctor) front(ctx context.Context) string {
	if d.VaultHost == "" || d.Resolve == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	canonical, err := d.Resolve(ctx, d.VaultHost)
	if err != nil {
		canonical = ""
	}
	canonical = strings.ToLower(strings.TrimSuffix(cmp.Or(canonical, d.VaultHost), "."))
	for _, n := range frontNames() {
		if n.form.MatchString(canonical) {
			return fmt.Sprintf("; %s leads to %s: %s", d.VaultHost, canonical, n.is)
		}
	}
	return ""
}
