package grant

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// documentKey begins the line of a policy that has the instance's document.
const documentKey = "# identity: "

// document is what an instance may know of its own grant. It reads it, as one line of JSON, from a comment of its own policy: the
// names that were granted and the names that it asks for so have one source. A policy needs no engine of its own, is written in one
// request with the rules that the document describes, and is removed with them.
type document struct {
	InstanceID string   `json:"instance_id"`
	Profile    string   `json:"profile"`
	FQDN       string   `json:"fqdn"`
	Addresses  []string `json:"addresses"` // IPv4 first, the primary one of each family first
	// Certificates has the requests for certificates that the instance may make, by the name of the output.
	Certificates map[string]certificateRequest `json:"certificates"`
	// HostCertificates has the requests for SSH host certificates that the instance may make, by the name of the output.
	HostCertificates map[string]hostRequest `json:"host_certificates,omitempty"`
}

// hostRequest has the path and the principals of a request for a host certificate with all names and addresses of its SSH role.
type hostRequest struct {
	Sign            string `json:"sign"`
	ValidPrincipals string `json:"valid_principals"` // with commas
}

// certificateRequest has the paths and the parameters of a request for one certificate with all names, addresses and URIs of its PKI
// role. A parameter without a value must not be sent.
type certificateRequest struct {
	Issue      string `json:"issue"`
	Sign       string `json:"sign"`
	CommonName string `json:"common_name"`
	AltNames   string `json:"alt_names,omitempty"` // with commas
	IPSANs     string `json:"ip_sans,omitempty"`   // with commas
	URISANs    string `json:"uri_sans,omitempty"`  // with commas
}

// identityAccess returns the text of identityAccess for a policy: the document, and the rule by which the instance reads the policy.
// It adds the rule to generated, for the guard.
func (r *rendering) identityAccess(policy string, generated map[string]string) (string, error) {
	v := r.values
	d := document{
		InstanceID: v.InstanceID, Profile: v.Profile, FQDN: v.FQDN, Addresses: slices.Concat(v.IPv4s, v.IPv6s),
		Certificates: map[string]certificateRequest{}, HostCertificates: map[string]hostRequest{},
	}
	for _, o := range r.profile.Outputs {
		if !o.Type.signs() || !r.profile.accessed[o.Name] {
			continue
		}
		id, err := r.identity(o.Name)
		if err != nil {
			return "", err
		}
		mount, role := o.mount(r.profile.BasePath), ObjectName(v.InstanceID, o.Name)
		if o.Type == KindSSHRole {
			d.HostCertificates[o.Name] = hostRequest{Sign: SignPath(mount, role), ValidPrincipals: strings.Join(id.principals(), ",")}
			continue
		}
		d.Certificates[o.Name] = certificateRequest{
			Issue: IssuePath(mount, role), Sign: SignPath(mount, role), CommonName: id.commonName,
			AltNames: strings.Join(id.dnsNames, ","), IPSANs: strings.Join(id.addresses, ","),
			URISANs: strings.Join(id.uris, ","),
		}
	}
	text, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("encoding the instance's document: %w", err)
	}
	own := rule{Path: PolicyPath(PolicyName(v.InstanceID, policy)), Capabilities: []string{"read"}}
	generated[own.Path] = writeRule(own)
	return documentKey + string(text) + "\n" + generated[own.Path], nil
}

// checkDocument returns an error unless the lines of a policy with the document's key are exactly those of the generated blocks. A tag
// in a comment, or a function around identityAccess, could otherwise make another document.
func checkDocument(policy string, blocks []string) error {
	if documentOf(policy) != documentOf(strings.Join(blocks, "\n")) {
		return fmt.Errorf("only identityAccess may write %q, at the beginning of a line and without a function around it", documentKey)
	}
	return nil
}

// documentOf returns the lines of a policy that have the key of a document, anywhere. A policy that this program wrote has at most
// one.
func documentOf(policy string) string {
	var lines strings.Builder
	for line := range strings.Lines(policy) {
		if strings.Contains(line, documentKey) {
			lines.WriteString(strings.TrimRight(line, "\r\n") + "\n")
		}
	}
	return lines.String()
}
