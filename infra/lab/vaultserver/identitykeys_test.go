package vaultserver_test

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// The list of internal/vault says which regions Vault knows. A newer Vault may know more.
func TestIdentityKeys_AreVaultsOwn(t *testing.T) {
	module := "github.com/hashicorp/vault@v" + vaultserver.Versions()[0].Number
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	out, err := cmd.Output()
	var found struct{ Dir string }
	if err != nil || json.Unmarshal(out, &found) != nil {
		t.Fatalf("downloading %s: %v: %s", module, err, out)
	}
	source, err := os.ReadFile(filepath.Join(found.Dir, "builtin", "credential", "aws", "certificates.go"))
	if err != nil {
		t.Fatal(err)
	}
	theirs := map[string]bool{} // those as long as AWS's keys for the signature
	for rest := []byte(strings.ReplaceAll(string(source), "`", "\n")); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if key, is := cert.PublicKey.(*rsa.PublicKey); is && key.N.BitLen() == 1024 {
			sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
			theirs[hex.EncodeToString(sum[:])] = true
		}
	}
	ours := map[string]bool{}
	for _, k := range vault.IdentityKeys() {
		if k.BuiltIn {
			ours[k.SHA256] = true
		} else if theirs[k.SHA256] {
			t.Errorf("%s has the key of %q built in: mark it in internal/vault", module, k.Regions)
		}
	}
	if got, want := slices.Sorted(maps.Keys(ours)), slices.Sorted(maps.Keys(theirs)); !slices.Equal(got, want) {
		t.Errorf("%s has %d keys for the signature, internal/vault lists as built in:\n%q\nand they are:\n%q", module, len(want), got, want)
	}
}
