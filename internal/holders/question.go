package holders

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// maxText bounds a name: a DNS name has at most 253 characters, a path in Vault more.
const maxText = 512

// spiffe begins a SPIFFE ID, the one form of URI that a certificate has.
const spiffe = "spiffe://"

// understand returns what a text names: an object in Vault by its name or path, an instance, an address, a URI, or a name of certificates.
func understand(text string) Asked {
	asked := Asked{Name: text}
	trimmed := strings.TrimSpace(text)
	if len(trimmed) > maxText {
		asked.Name = trimmed[:maxText]
	}
	switch address, isAddress := addressIn(trimmed); {
	case trimmed == "", len(trimmed) > maxText, strings.ContainsAny(trimmed, "#\x00"):
		asked.As, asked.Error = Unreadable, fmt.Sprintf("it is empty, longer than %d bytes, or has a # in it: no name has that form", maxText)
	case isAddress:
		asked.As, asked.Text = OfAddress, address
	case strings.HasPrefix(strings.ToLower(trimmed), spiffe):
		asked.As, asked.Text = OfURI, strings.ToLower(trimmed)
	case instanceIn(trimmed) != "":
		asked.As, asked.Text = OfObject, instanceIn(trimmed)
	case strings.Contains(trimmed, "/"):
		asked.As, asked.Error = Unreadable, "a path in Vault must end with the name of an instance's object: <instance ID>-<output>, ec2-<instance ID>-<output> or, for an auth role, <instance ID>"
	default:
		asked.As, asked.Text = OfName, strings.ToLower(strings.TrimSuffix(trimmed, "."))
	}
	return asked
}

// addressIn returns an address in the form in which the ledger has it; where networks overlap, the form is 10.0.0.1@vpc-….
func addressIn(text string) (string, bool) {
	address, vpc, _ := strings.Cut(text, "@")
	if at, length, isNetwork := strings.Cut(address, "/"); isNetwork && (length == "32" || length == "128") {
		address = at
	}
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" {
		return "", false
	}
	if address = a.Unmap().String(); vpc != "" {
		address += "@" + vpc
	}
	return address, true
}

// instanceIn returns the instance in the name or the path of one of its objects; empty for any other text.
func instanceIn(text string) string {
	name := text[strings.LastIndexByte(text, '/')+1:]
	if facts.IsInstanceID(name) {
		return name
	}
	if id, _, ok := grant.SplitObjectName(name); ok {
		return id
	}
	return ""
}

// matches reports whether a name of the ledger is the asked one. An address without a VPC is that of each VPC.
func (a Asked) matches(text string) bool {
	if a.As == OfAddress && !strings.Contains(a.Text, "@") {
		text, _, _ = strings.Cut(text, "@")
	}
	return a.isInLedger() && text == a.Text
}

// auditFilter returns the filter for jq that selects what Vault's audit log has of an instance. The log has paths, policies and the
// names of tokens in the clear, and each of them has the instance's ID in it.
// https://developer.hashicorp.com/vault/docs/audit/schema
func auditFilter(instanceID string) string {
	return fmt.Sprintf(`select(.type == "response" and ([.request.path, .auth.display_name, .auth.policies, .auth.metadata, .response.auth.policies, .response.auth.metadata] `+
		`| tostring | contains(%q))) | {time, operation: .request.operation, path: .request.path, token: .auth.display_name, from: .request.remote_address, error}`, instanceID)
}
