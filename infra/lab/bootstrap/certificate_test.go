package bootstrap

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// signed is a region's key of identity documents.
type signed struct {
	key       *rsa.PrivateKey
	pem, file string
}

func newSigned(t *testing.T) signed {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024) // as long as AWS's
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := signed{key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), filepath.Join(t.TempDir(), "region.pem")}
	if err := os.WriteFile(s.file, []byte(s.pem+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// login tries the login that Vault Agent makes, with a document of the region, and returns Vault's refusal: the instance does not exist.
func (w *world) login(t *testing.T, s signed) string {
	t.Helper()
	document := []byte(`{"instanceId": "i-0123456789abcdef0", "accountId": "123456789012", "region": "xx-new-1", "pendingTime": "2026-01-01T00:00:00Z"}`)
	sum := sha256.Sum256(document)
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.vault.Logical().WriteWithContext(t.Context(), "auth/aws/login", map[string]any{
		"role": "i-0123456789abcdef0", "identity": base64.StdEncoding.EncodeToString(document), "signature": base64.StdEncoding.EncodeToString(signature),
	})
	if err == nil {
		t.Fatal("a login of an instance that does not exist succeeded")
	}
	return err.Error()
}

// Vault knows the keys of the regions of May 2022. In a later region no instance logs in until its certificate is written.
func TestSetup_WritesCertificateOfNewRegion(t *testing.T) {
	const unverified = "SHA256 RSA"
	w, s := start(t), newSigned(t)
	args := []string{"-templates-dir", profiles(t), "-resolve-unique-ids=false"}
	w.must(t, args...)
	w.write(t, "auth/aws/role/i-0123456789abcdef0", map[string]any{"auth_type": "ec2", "bound_ec2_instance_id": "i-0123456789abcdef0"})
	if answer := w.login(t, s); !strings.Contains(answer, unverified) {
		t.Errorf("without the region's certificate want the signature refused, got %s", answer)
	}
	with := append(slices.Clone(args), "-certificate", "xx-new-1="+s.file)
	if out := w.must(t, append(with, "-dry-run")...); !strings.Contains(out, "create  auth/aws/config/certificate/xx-new-1  (type identity)") {
		t.Errorf("want a dry run to print the write:\n%s", out)
	}
	w.must(t, with...)
	if answer := w.login(t, s); strings.Contains(answer, unverified) {
		t.Errorf("with the region's certificate want the signature accepted, got %s", answer)
	}
	if out := w.must(t, with...); !strings.Contains(out, "ok      auth/aws/config/certificate/xx-new-1") || !strings.Contains(out, "\n0 of ") {
		t.Errorf("want no change in a second run:\n%s", out)
	}
}

func TestSetup_KeepsAnothersCertificate(t *testing.T) {
	w, theirs, ours := start(t), newSigned(t), newSigned(t)
	args := []string{"-templates-dir", profiles(t), "-resolve-unique-ids=false"}
	w.must(t, args...)
	with := append(slices.Clone(args), "-certificate", "xx-new-1="+ours.file)
	for _, stored := range []map[string]any{
		{"type": "identity", "aws_public_cert": theirs.pem},
		{"type": "pkcs7", "aws_public_cert": ours.pem}, // of logins of another kind
	} {
		w.write(t, "auth/aws/config/certificate/xx-new-1", stored)
		w.refused(t, []string{"auth/aws/config/certificate/xx-new-1 has another certificate", "Nothing was written", "vault delete"}, with...)
	}
	w.refused(t, []string{"me-central-1", "not the one that AWS had published", "Nothing was written", "regions-certs.html"}, append(args, "-certificate", "me-central-1="+ours.file)...)
	w.refused(t, []string{`"uae" is not a region`}, append(args, "-certificate", "uae="+ours.file)...)
}
