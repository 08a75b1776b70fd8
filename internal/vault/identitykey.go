package vault

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// IdentityKey is a public key with which AWS signs the identity documents of regions: the signature that Vault Agent sends. Vault looks at
// the key alone, so it also verifies regions whose certificate AWS renewed with the same key.
type IdentityKey struct {
	SHA256  string   // of the public key in DER, in hex
	BuiltIn bool     // Vault's AWS auth method has the key built in
	Regions []string // sorted
}

// IdentityKeys returns the key of each region as AWS published it on 2025-08-11: the certificate that the page has under RSA. Vault's
// own list is of 2022-05-31, and the same in 1.16 to 1.21. infra/lab/vaultserver compares the list with Vault's source.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/regions-certs.html
// https://github.com/hashicorp/vault/blob/v1.21.4/builtin/credential/aws/certificates.go
func IdentityKeys() []IdentityKey {
	return []IdentityKey{
		{SHA256: "e73741745153ac5fb6adae3ad3b441653a2b32cdab487ecf5b1d02ffd32ed068", BuiltIn: true, Regions: []string{"af-south-1"}},
		{SHA256: "57be7783af6914b9bd7ad1e2c39f3121ae65039b721564992f66fd295faacf69", BuiltIn: true, Regions: []string{"ap-east-1"}},
		{SHA256: "8a61ba393a4aa067e73b9b5e75851ea4345aa5e6dab02538e8c1acd435b1f93f", BuiltIn: true, Regions: []string{
			"ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1", "eu-north-1",
			"eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
		}},
		{SHA256: "6b3c5156ae0fc92ddfaa684906ea59e29963ee97c8084c4fcadb07b0b6a16cc4", BuiltIn: true, Regions: []string{"ap-southeast-3"}},
		{SHA256: "74e4213b9a788e1aa468038caa61e072a5f855cca3613935259fc439176f4466", BuiltIn: true, Regions: []string{"cn-north-1", "cn-northwest-1"}},
		{SHA256: "c4cb89b26b4be7df0a36f62db4d9722877ae6cd91656d5cdd12365525c1220d9", BuiltIn: true, Regions: []string{"eu-south-1"}},
		{SHA256: "76d676e0b1fdafded401c2b8ab9b1cb35100cb084a9b2157e0ef38bd7d2635c4", BuiltIn: true, Regions: []string{"me-south-1"}},
		{SHA256: "76c996c58e8acf1ffe8dca1358c47d05bd5f1fb02776bc964e2278399ca205a3", BuiltIn: true, Regions: []string{"us-gov-east-1", "us-gov-west-1"}},
		{SHA256: "fcc00e0cc57f2aea1f902a31343de4f77bb82cea76445e173f0481287055e82c", Regions: []string{"ap-east-2"}},
		{SHA256: "d2bdbca6763cae6647e41bc3df69e411e7eed4c8543f5d05d36e6667d1e97bca", Regions: []string{"ap-south-2"}},
		{SHA256: "e456ebfd7e0d10a046ec615b8bb00ea20fd7d5a22fd63eefaaacd0a991ddc244", Regions: []string{"ap-southeast-4"}},
		{SHA256: "70aadc288c5e7198bfaa124729781e47ac53210e69843e2a95791b00aa3ad324", Regions: []string{"ap-southeast-5"}},
		{SHA256: "a161fe159c3068b4b5b562130cb83a0b4400594e75c557289a1ba34c0187afdf", Regions: []string{"ap-southeast-7"}},
		{SHA256: "6643ea281699b1fa8b2ed269e54af801a51534ec53a5d2f84fd7ee2fdae4f2f8", Regions: []string{"ca-west-1"}},
		{SHA256: "a7d558f4b579bce9ee13c156cff0febd41ec622b67e4586f54511548234526b6", Regions: []string{"eu-central-2"}},
		{SHA256: "0ff278ad8359c1304c537ab3616bc93ea29ec7be5d5fe2ef6aee74cb97ac0c3d", Regions: []string{"eu-south-2"}},
		{SHA256: "9254cdd8b4d98557e522429e16c71afe9d1f51ccb86edab7fa90be9e2e68c752", Regions: []string{"il-central-1"}},
		{SHA256: "7a00894ea1bb56e1a502da64c3b6d86db81118864406ec46306c35d9b19a8963", Regions: []string{"me-central-1"}},
		{SHA256: "ed6a9f231da89ae53601493ba757abf375bb221b05d7ed796ec3900a0bb572fb", Regions: []string{"mx-central-1"}},
	}
}

// identityKeyOf returns the key of a region; ok is false for a region that is not in the list.
func identityKeyOf(region string) (key IdentityKey, ok bool) {
	for _, k := range IdentityKeys() {
		if slices.Contains(k.Regions, region) {
			return k, true
		}
	}
	return IdentityKey{}, false
}

// HasIdentityKey reports whether Vault has the key of a region's identity documents built in.
func HasIdentityKey(region string) bool {
	key, _ := identityKeyOf(region)
	return key.BuiltIn
}

// IdentityCertificate is a certificate for identity documents, as config/certificate of the AWS auth method has it.
type IdentityCertificate struct {
	PEM    string // one block
	SHA256 string // of its public key in DER, in hex
	Bits   int    // of its RSA key
}

// ParseIdentityCertificate reads a certificate with which Vault can verify the signature that Vault Agent sends. Vault takes one block of PEM
// only. AWS's page has three certificates for each region: under DSA for pkcs7, under RSA for the signature, under RSA-2048 for rsa2048.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-iid.html
func ParseIdentityCertificate(text string) (IdentityCertificate, error) {
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return IdentityCertificate{}, errors.New("it is no certificate in PEM")
	case block.Type != "CERTIFICATE":
		return IdentityCertificate{}, fmt.Errorf("it is a %s and no certificate", block.Type)
	case strings.TrimSpace(string(rest)) != "":
		return IdentityCertificate{}, errors.New("it has more than one block of PEM: save one certificate only")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return IdentityCertificate{}, fmt.Errorf("reading the certificate: %w", err)
	}
	key, isRSA := cert.PublicKey.(*rsa.PublicKey)
	if !isRSA {
		return IdentityCertificate{}, fmt.Errorf("its key is of type %s: save the certificate that AWS's page has under RSA", cert.PublicKeyAlgorithm)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return IdentityCertificate{PEM: string(pem.EncodeToMemory(block)), SHA256: hex.EncodeToString(sum[:]), Bits: key.N.BitLen()}, nil
}

// Is reports whether the certificate has the key that AWS published for the region.
func (c IdentityCertificate) Is(region string) bool {
	want, _ := identityKeyOf(region)
	return c.SHA256 == want.SHA256
}

// Check returns an error if the certificate cannot be the region's. It is nil for a region that is not in the list.
func (c IdentityCertificate) Check(region string) error {
	want, listed := identityKeyOf(region)
	if !listed || c.SHA256 == want.SHA256 {
		return nil
	}
	for _, k := range IdentityKeys() {
		if k.SHA256 == c.SHA256 {
			return fmt.Errorf("it is the certificate of %s", strings.Join(k.Regions, ", "))
		}
	}
	if c.Bits != publishedBits {
		return fmt.Errorf("its RSA key has %d bits: save the certificate that AWS's page has under RSA, and not the one under RSA-2048", c.Bits)
	}
	return ErrNewKey
}

// ErrNewKey is Check's error for a key that is no other region's and has the usual length: AWS may have changed the region's key.
var ErrNewKey = errors.New("its key is not the one that AWS had published for the region on 2025-08-11")

// publishedBits is the length of every key in the list.
const publishedBits = 1024

// IsUnusual reports whether the certificate's key has another length than those that AWS publishes for the signature.
func (c IdentityCertificate) IsUnusual() bool { return c.Bits != publishedBits }
