package ask

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/certificates"
)

// readCertificate returns the first certificate in a PEM file.
func readCertificate(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate of %s: %w", file, err)
		}
		return c, nil
	}
	return nil, fmt.Errorf("%s has no certificate in PEM: a certificate begins with -----BEGIN CERTIFICATE-----", file)
}

// namesIn returns the names, addresses and URIs of a certificate. Its common name counts only if it has no other name: a common name such as
// system:node:web-1 is held with the DNS name in it.
func namesIn(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	for i := range names {
		names[i] = strings.ToLower(names[i])
	}
	return names
}

// serialOf returns the serial number of a certificate in Vault's form.
func serialOf(c *x509.Certificate) string { return certificates.Serial(string(c.SerialNumber.Bytes())) }
