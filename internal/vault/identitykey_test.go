package vault_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// uae is the certificate that AWS has under RSA for me-central-1.
const uae = `-----BEGIN CERTIFICATE-----
MIICMzCCAZygAwIBAgIGAXjRrnDjMA0GCSqGSIb3DQEBBQUAMFwxCzAJBgNVBAYT
AlVTMRkwFwYDVQQIDBBXYXNoaW5ndG9uIFN0YXRlMRAwDgYDVQQHDAdTZWF0dGxl
MSAwHgYDVQQKDBdBbWF6b24gV2ViIFNlcnZpY2VzIExMQzAgFw0yMTA0MTQxODM5
MzNaGA8yMjAwMDQxNDE4MzkzM1owXDELMAkGA1UEBhMCVVMxGTAXBgNVBAgMEFdh
c2hpbmd0b24gU3RhdGUxEDAOBgNVBAcMB1NlYXR0bGUxIDAeBgNVBAoMF0FtYXpv
biBXZWIgU2VydmljZXMgTExDMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDc
aTgW/KyA6zyruJQrYy00a6wqLA7eeUzk3bMiTkLsTeDQfrkaZMfBAjGaaOymRo1C
3qzE4rIenmahvUplu9ZmLwL1idWXMRX2RlSvIt+d2SeoKOKQWoc2UOFZMHYxDue7
zkyk1CIRaBukTeY13/RIrlc6X61zJ5BBtZXlHwayjQIDAQABMA0GCSqGSIb3DQEB
BQUAA4GBABTqTy3R6RXKPW45FA+cgo7YZEj/Cnz5YaoUivRRdX2A83BHuBTvJE2+
WX00FTEj4hRVjameE1nENoO8Z7fUVloAFDlDo69fhkJeSvn51D1WRrPnoWGgEfr1
+OfK1bAcKTtfkkkP9r4RdwSjKzO5Zu/B+Wqm3kVEz/QNcz6npmA6
-----END CERTIFICATE-----
`

func TestIdentityCertificate_IsCheckedForItsRegion(t *testing.T) {
	for name, row := range map[string]struct {
		text, region string
		says         string // empty for a certificate that is accepted
	}{
		"the region's own":             {uae, "me-central-1", ""},
		"another region's":             {uae, "eu-central-2", "it is the certificate of me-central-1"},
		"a region that is not listed":  {withKey(t, 2048), "xx-new-1", ""},
		"the one under RSA-2048":       {withKey(t, 2048), "me-central-1", "not the one under RSA-2048"},
		"a key that AWS may have made": {withKey(t, 1024), "me-central-1", "not the one that AWS had published"},
		"two blocks":                   {uae + uae, "me-central-1", "more than one block"},
		"no PEM":                       {"me-central-1", "me-central-1", "no certificate in PEM"},
		"a key":                        {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})), "me-central-1", "it is a PUBLIC KEY"},
		"no RSA key":                   {withKey(t, 0), "me-central-1", "type ECDSA"},
		"a broken one":                 {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), "me-central-1", "reading the certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := vault.ParseIdentityCertificate(row.text)
			if err == nil {
				err = c.Check(row.region)
			}
			if (err == nil) != (row.says == "") || (err != nil && !strings.Contains(err.Error(), row.says)) {
				t.Errorf("want %q, got %v", row.says, err)
			}
			if isNew := errors.Is(err, vault.ErrNewKey); isNew != strings.Contains(name, "may have made") {
				t.Errorf("want ErrNewKey for no other fault: %v", err)
			}
		})
	}
}

func TestIdentityKeys_HaveEachRegionOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range vault.IdentityKeys() {
		for _, r := range k.Regions {
			if seen[r] {
				t.Errorf("%s is there twice", r)
			}
			seen[r] = true
			if vault.HasIdentityKey(r) != k.BuiltIn {
				t.Errorf("%s: want built in %v", r, k.BuiltIn)
			}
		}
	}
	if len(seen) < 30 || vault.HasIdentityKey("xx-new-1") {
		t.Errorf("want at least 30 regions, and a region that is not there unknown: %v", seen)
	}
}

// withKey returns a certificate with an RSA key of so many bits; 0: with an elliptic one.
func withKey(t *testing.T, bits int) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	var der []byte
	if bits == 0 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
			t.Fatal(err)
		}
	} else {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		if der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
			t.Fatal(err)
		}
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
