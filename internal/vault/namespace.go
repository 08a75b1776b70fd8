package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// The faults of a namespace.
var (
	// ErrNamespacesIgnored says that a server ignores a request's namespace, as the community edition of Vault does: every request
	// acts in the root namespace.
	ErrNamespacesIgnored = errors.New("the server ignores namespaces: every request acts in its root namespace")
	// ErrNoNamespace says that a server has no namespace of that name.
	ErrNoNamespace = errors.New("the server has no such namespace")
)

const (
	// openPath answers without a token in every namespace, for the login page,
	// https://developer.hashicorp.com/vault/api-docs/system/internal-ui-mounts
	openPath = "sys/internal/ui/mounts"
	// noNamespace is never the last segment of a namespace, because the name is reserved: grant.ParseNamespace.
	noNamespace = "/sys"
	// withoutNamespace is OpenBao's text for a namespace that does not exist, with status 404.
	withoutNamespace = "namespace not found"
)

// CheckNamespace returns an error if the server ignores namespaces (ErrNamespacesIgnored), lacks the client's (ErrNoNamespace), or does
// not answer. It makes no login. The root namespace is not checked.
func (c *Client) CheckNamespace(ctx context.Context) error {
	anonymous, err := c.session.anonymous(ctx)
	if err == nil {
		err = c.callOnce(ctx, anonymous, func(ctx context.Context, v *Conn) error {
			return v.CheckNamespace(ctx, c.session.options.Namespace)
		})
	}
	return c.dropUntrusted(err)
}

// CheckNamespace is Client's for any namespace. It sends no token.
//
// Without an error the namespace may still be missing: a server may hide its namespaces behind a 403. A login shows that.
func (c *Conn) CheckNamespace(ctx context.Context, namespace string) error {
	if namespace == "" {
		return nil
	}
	err := c.visit(ctx, namespace+noNamespace)
	if err == nil {
		return fmt.Errorf("namespace %s: %w", namespace, ErrNamespacesIgnored)
	}
	if isRefusal(err) {
		err = c.visit(ctx, namespace)
	}
	switch {
	case statusOf(err) == http.StatusNotFound:
		return fmt.Errorf("namespace %s: %w: %w", namespace, ErrNoNamespace, oneLine(err))
	case err != nil && !isRefusal(err):
		return fmt.Errorf("looking for the namespace %s: %w", namespace, oneLine(err))
	}
	return nil
}

// isRefusal reports whether the server understood a request and declined it.
func isRefusal(err error) bool {
	s := statusOf(err)
	return s == http.StatusBadRequest || s == http.StatusForbidden || s == http.StatusNotFound
}

// isWithoutNamespace reports whether Vault answered that the request's namespace does not exist.
func isWithoutNamespace(err error) bool {
	var r *api.ResponseError
	return errors.As(err, &r) && r.StatusCode == http.StatusNotFound && strings.Contains(strings.Join(r.Errors, " "), withoutNamespace)
}

// isAbsent reports whether Vault answered that nothing exists at a path. A missing namespace says nothing about the path: a request
// may have reached another server than the one with the objects.
func isAbsent(err error) bool {
	return statusOf(err) == http.StatusNotFound && !isWithoutNamespace(err)
}

// inNamespace returns the namespace as errors name it; empty for the root one.
func inNamespace(namespace string) string {
	if namespace == "" {
		return ""
	}
	return " (namespace " + namespace + ")"
}
