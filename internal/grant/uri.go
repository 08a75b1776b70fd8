package grant

import (
	"fmt"
	"regexp"
)

// uriForm is the form of a URI that a certificate may have: a scheme, an authority and a path in the characters of a SPIFFE ID, none
// of which Vault, or a reader of the certificate, takes for anything but itself. A * is a wildcard in allowed_uri_sans, a comma
// separates the values of uri_sans, and a dot segment, a percent sign or a port can name the same thing in another way.
// https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#2-spiffe-identity
// https://developer.hashicorp.com/vault/api-docs/secret/pki#allowed_uri_sans
var uriForm = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://[a-z0-9_-]+(?:\.[a-z0-9_-]+)*(?:/[A-Za-z0-9._-]+)*$`)

// dotSegment is a segment of a URI's path that stands for another one.
var dotSegment = regexp.MustCompile(`/\.{1,2}(?:/|$)`)

// maxURI is the longest URI in bytes. A claim on it is part of a key of the ledger, which DynamoDB bounds at 2048 bytes.
const maxURI = 512

// CheckURI returns an error for a URI that no certificate may have.
func CheckURI(uri string) error {
	switch {
	case len(uri) > maxURI:
		return fmt.Errorf("the URI %.40q… has more than %d bytes", uri, maxURI)
	case !uriForm.MatchString(uri):
		return fmt.Errorf("%+q is not of the form %s, as in spiffe://alice/i-0123456789abcdef0", uri, uriForm)
	case dotSegment.MatchString(uri):
		return fmt.Errorf("the URI %q has a dot segment", uri)
	}
	return nil
}

// uri renders one URI.
func (r *rendering) uri(c *compiled) (string, error) {
	uri, err := c.execute(r.values, nil)
	if err != nil {
		return "", err
	}
	return uri, CheckURI(uri)
}
