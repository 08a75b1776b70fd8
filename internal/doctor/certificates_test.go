package doctor_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

const listed, one = "auth/aws/config/certificates", "auth/aws/config/certificate/"

func certificate(t *testing.T, bits int) string {
	t.Helper()
	return signed(t, bits, time.Time{})
}

// certificateUntil returns a certificate that ends at a time.
func certificateUntil(t *testing.T, end time.Time) string {
	t.Helper()
	return signed(t, 2048, end)
}

func signed(t *testing.T, bits int, end time.Time) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestDoctor_NamesRegionsWhoseKeyVaultLacks(t *testing.T) {
	stored := func(name, kind, text string) func(*world) {
		return func(w *world) {
			w.lists[listed] = []string{name}
			w.objects[one+name] = map[string]any{"type": kind, "aws_public_cert": text}
		}
	}
	for name, row := range map[string]struct {
		region string
		spoil  func(*world)
		says   string
		remedy string // empty: OK
	}{
		"a region that Vault knows":            {"cn-north-1", func(*world) {}, "built in: ", ""},
		"GovCloud, renewed with the same key":  {"us-gov-west-1", func(*world) {}, "built in: ", ""},
		"a region opened later":                {"me-central-1", func(*world) {}, "does not know the key of the identity documents of me-central-1", "--certificate me-central-1=<file>"},
		"a region that is not listed":          {"xx-new-1", func(*world) {}, "identity documents of xx-new-1", "--certificate xx-new-1=<file>"},
		"its certificate":                      {"me-central-1", stored("me-central-1", "identity", certificate(t, 1024)), "has a certificate for the identity documents of me-central-1", ""},
		"its certificate, for another login":   {"me-central-1", stored("me-central-1", "pkcs7", certificate(t, 1024)), "me-central-1 has the type pkcs7", "--certificate me-central-1="},
		"the one under RSA-2048":               {"me-central-1", stored("me-central-1", "identity", certificate(t, 2048)), "is not the region's: its RSA key has 2048 bits", "--certificate me-central-1="},
		"no certificate":                       {"me-central-1", stored("me-central-1", "identity", "text"), "cannot verify", "--certificate me-central-1="},
		"an unknown key under another's name":  {"me-central-1", stored("lab", "identity", certificate(t, 1024)), "does not know", "--certificate me-central-1="},
		"a list that cannot be read":           {"me-central-1", fails(listed, err403), "403", "vault-ec2 setup"},
		"logins of type iam carry no document": {"me-central-1", func(w *world) { w.options.Profiles = load(t, "iam", "arn:aws:iam::*:role/alice-worker") }, "no profile has logins of type ec2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy(t)
			w.options.Places = append(w.options.Places, facts.Place{Region: row.region})
			row.spoil(w)
			c := check(t, w.examine(t), "certificates of auth/aws")
			if c.OK != (row.remedy == "") || !strings.Contains(c.Detail, row.says) || !strings.Contains(c.Remedy, row.remedy) {
				t.Errorf("want %q with the remedy %q, got %+v", row.says, row.remedy, c)
			}
		})
	}
}

// Vault refuses each request by an issuer that has ended, with an error that only the instances see.
func TestDoctor_FindsIssuersThatHaveEnded(t *testing.T) {
	for name, row := range map[string]struct {
		answer map[string]any
		ok     bool
		says   string
	}{
		"an issuer that has ended":         {map[string]any{"certificate": certificateUntil(t, time.Now().Add(-time.Hour))}, false, `"default", which alice-p0, alice-p1 uses, ended on 20`},
		"an issuer that has not":           {map[string]any{"certificate": certificateUntil(t, time.Now().Add(time.Hour))}, true, `"default" ends on 20`},
		"an issuer that cannot be read":    {nil, true, "not known"},
		"an answer that is no certificate": {map[string]any{"certificate": "-"}, true, "no certificate"},
	} {
		w := healthy(t)
		w.objects[pki+"/issuer/default/json"] = row.answer
		if c := check(t, w.examine(t), "issuers "+pki); c.OK != row.ok || !strings.Contains(c.Detail, row.says) {
			t.Errorf("%s: want OK %v and %q, got %+v", name, row.ok, row.says, c)
		}
	}
}
