package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// The beginnings of Vault's warnings that it stored another object than was sent.
const (
	// dropped: Vault does not know a field.
	// https://github.com/hashicorp/vault/blob/sdk/v0.21.0/sdk/framework/backend.go
	dropped = "Endpoint ignored these unrecognized parameters"
	// replaced: a field has the name of a part of the path. From the same file.
	replaced = "Endpoint replaced the value of these parameters"
	// exclusive: a PKI role with no_store and generate_lease is stored without generate_lease.
	// https://github.com/hashicorp/vault/blob/v1.21.4/builtin/logical/pki/path_roles.go
	exclusive = "mutually exclusive values"
)

// SplitWarnings returns Vault's warnings after a write in two parts. After those of altered, Vault holds another object than was
// sent. Advice concerns the use of an object: a lifetime that the mount will cap at each login, an issuer that does not exist yet,
// an intended setting. A warning that is not known counts as advice, so a caller must read the object back and compare it.
func SplitWarnings(warnings []string) (altered, advice []string) {
	for _, w := range warnings {
		isAltered := slices.ContainsFunc([]string{dropped, replaced, exclusive}, func(begin string) bool { return strings.HasPrefix(w, begin) })
		if isAltered {
			altered = append(altered, w)
		} else {
			advice = append(advice, w)
		}
	}
	return altered, advice
}

// errIgnored marks the error of a write of which the server dropped a field.
var errIgnored = errors.New("the server ignored fields")

// alteredError returns an error for the warnings that Vault stored another object than was sent; nil if there are none. Its kind
// is Refuse, since Vault will store the same again. It is errIgnored if Vault dropped a field.
func alteredError(altered []string) error {
	text := strings.Join(altered, "; ")
	switch {
	case len(altered) == 0:
		return nil
	case slices.ContainsFunc(altered, func(w string) bool { return strings.HasPrefix(w, dropped) }):
		return fault.New(fault.Refuse, fmt.Errorf("%w: %s", errIgnored, text))
	}
	return fault.Refusef("the server stored other values than were sent: %s: correct the profile's template", text)
}

// advise logs advice, each text once for the life of the client: it is the same for every instance of a profile. The line does not
// say that Vault stored the object as sent, which only the comparison after it shows.
func (c *Client) advise(ctx context.Context, path string, advice []string) {
	for _, text := range advice {
		if _, known := c.advised.LoadOrStore(text, true); !known {
			c.session.options.Log.WarnContext(ctx, "Vault accepted a write, with advice", observe.KeyPath, path, observe.KeyReason, text)
		}
	}
}
