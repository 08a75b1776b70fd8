package vault

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

func statusOf(err error) int {
	var r *api.ResponseError
	if errors.As(err, &r) {
		return r.StatusCode
	}
	return 0
}

func isUntrusted(err error) bool {
	var authority x509.UnknownAuthorityError
	return errors.As(err, &authority)
}

// ErrNotMounted says that Vault has no mount at a path, so that nothing exists below it.
var ErrNotMounted = errors.New("nothing is mounted there")

// isNotMounted reports whether Vault answered that no mount contains the path. A mount whose plugin does not run, or that is being
// disabled or moved, has another text: it may hold objects.
// https://github.com/hashicorp/vault/blob/v1.21.4/vault/router.go#L597
func isNotMounted(r *api.ResponseError) bool {
	return r.StatusCode == http.StatusNotFound && strings.Contains(strings.Join(r.Errors, ""), "route entry not found")
}

const (
	writing  = "writing"
	policies = "sys/policies/acl/"
	unparsed = "failed to parse policy"
)

// kindOf decides the fault kind of every error of Vault.
// https://developer.hashicorp.com/vault/api-docs#http-status-codes
func kindOf(err error, operation, path string) fault.Kind {
	switch statusOf(err) {
	case 0:
		return fault.KindOf(err) // no answer: Retry, or the kind that err already has
	case http.StatusBadRequest:
		// A write that is wrong stays wrong. But Vault's system backend also answers 400 for faults of its own, such as a
		// leader lost while it stored a policy: for policies, only a text that does not parse is refused.
		vaultsOwn := strings.HasPrefix(path, policies) && !strings.Contains(err.Error(), unparsed)
		if operation != writing || vaultsOwn {
			return fault.Retry
		}
		return fault.Refuse
	case http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge:
		return fault.Refuse
	default:
		// Outages (5xx, 429, 472, 473) and a lag (412) end by themselves. A missing grant (403) or mount (404) needs a person: the event waits
		// in its queue, and in the end in the dead-letter queue.
		return fault.Retry
	}
}

// remedy returns the next step for an error of a path, in brackets; empty if there is none.
func remedy(err error, path string) string {
	var r *api.ResponseError
	switch {
	case isWithoutNamespace(err):
		return " (the server has no such namespace: correct VAULT_NAMESPACE, or create the namespace and run vault-ec2 setup in it)"
	case !errors.As(err, &r):
	case r.StatusCode == http.StatusForbidden:
		return " (the function's Vault policy lacks this grant: run vault-ec2 setup with the current profiles, and with --also-path for a path that no profile names any longer)"
	case isNotMounted(r) && strings.HasPrefix(path, "auth/"):
		return " (nothing is mounted there: run vault-ec2 setup with --auth-mount, or set VAULT_AUTH_MOUNT to an existing mount)"
	case isNotMounted(r):
		return " (nothing is mounted there: mount the engine that the profile's base_path and path name, or correct them; vault-ec2 setup mounts PKI engines only, with --pki)"
	case r.StatusCode == http.StatusMethodNotAllowed, strings.Contains(strings.Join(r.Errors, ""), "unsupported path"):
		return " (the engine that is mounted there has no such path: correct the profile's base_path and path, or mount the engine that has it)"
	}
	return ""
}

// oneLine returns an error of Vault's with its text in one line, and any other error unchanged.
func oneLine(err error) error {
	var r *api.ResponseError
	if !errors.As(err, &r) {
		return err
	}
	return &statusError{response: r}
}

type statusError struct{ response *api.ResponseError }

func (e *statusError) Error() string {
	return fmt.Sprintf("status %d: %s", e.response.StatusCode, strings.Join(strings.Fields(strings.Join(e.response.Errors, "; ")), " "))
}

func (e *statusError) Unwrap() error { return e.response }

// Is reports whether the error is ErrNotMounted.
func (e *statusError) Is(target error) bool {
	return target == ErrNotMounted && isNotMounted(e.response)
}
