package fleet

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
	"github.com/smallstep/pkcs7"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// signer signs identity documents as EC2 does.
type signer struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newSigner() (*signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab EC2 identity documents"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &signer{key: key, cert: cert}, err
}

// CertificatePEM returns the certificate that Vault needs to trust the fleet's
// identity documents.
func (f *Fleet) CertificatePEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.signer.cert.Raw}))
}

// RegisterCertificate makes an AWS auth mount trust the fleet's identity
// documents in both forms, under the names "lab" and "lab-identity".
func (f *Fleet) RegisterCertificate(ctx context.Context, client *vaultapi.Client, mount string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	for name, form := range map[string]string{"lab": "pkcs7", "lab-identity": "identity"} {
		path := grant.AuthConfigPath(mount, "certificate/"+name)
		_, err := client.Logical().WriteWithContext(ctx, path, map[string]any{
			"type": form, "aws_public_cert": base64.StdEncoding.EncodeToString([]byte(f.CertificatePEM())),
		})
		if err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return nil
}

// Document returns an instance's identity document.
func (f *Fleet) Document(i Instance) []byte {
	f.mu.Lock()
	pending, restarted := f.started[i.ID]
	f.mu.Unlock()
	if !restarted {
		pending = i.LaunchTime
	}
	var address any // null on an instance without an IPv4 address
	if i.PrivateIP != "" {
		address = i.PrivateIP
	}
	doc, _ := json.MarshalIndent(map[string]any{ // strings only: cannot fail
		"accountId": i.AccountID, "architecture": "x86_64", "availabilityZone": i.AvailabilityZone, "billingProducts": nil,
		"devpayProductCodes": nil, "imageId": i.ImageID, "instanceId": i.ID, "instanceType": i.InstanceType, "kernelId": nil,
		"marketplaceProductCodes": nil, "pendingTime": pending.UTC().Format(time.RFC3339), "privateIp": address,
		"ramdiskId": nil, "region": i.Region, "version": "2017-09-30",
	}, "", "  ")
	return doc
}

// PKCS7 returns the signed identity document in base64, as the instance metadata
// service returns it at dynamic/instance-identity/pkcs7.
func (f *Fleet) PKCS7(i Instance) (string, error) { return f.Sign(f.Document(i)) }

// Sign signs any document, so that a test can send Vault a forged one.
func (f *Fleet) Sign(document []byte) (string, error) {
	data, err := pkcs7.NewSignedData(document)
	if err != nil {
		return "", fmt.Errorf("preparing the signature: %w", err)
	}
	data.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := data.AddSigner(f.signer.cert, f.signer.key, pkcs7.SignerInfoConfig{}); err != nil {
		return "", fmt.Errorf("signing the identity document: %w", err)
	}
	der, err := data.Finish()
	if err != nil {
		return "", fmt.Errorf("finishing the signature: %w", err)
	}
	return base64.StdEncoding.EncodeToString(der), nil
}

// Session is a Vault client that carries an instance's token.
type Session struct {
	*vaultapi.Client
	Auth  *vaultapi.SecretAuth
	Nonce string // required at the next login of the same instance
}

// Login logs in to Vault as the instance does, with its own ID as the role's
// name. With an empty nonce, Vault makes one.
func (f *Fleet) Login(ctx context.Context, mount string, i Instance, nonce string) (*Session, error) {
	signed, err := f.PKCS7(i)
	if err != nil {
		return nil, fmt.Errorf("logging in as %s: %w", i.ID, err)
	}
	return f.LoginWith(ctx, mount, i, map[string]any{"role": i.ID, "pkcs7": signed, "nonce": nonce})
}

// LoginWith logs in with exactly these fields, right or wrong, from an instance's address.
func (f *Fleet) LoginWith(ctx context.Context, mount string, from Instance, fields map[string]any) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	client, err := f.ClientOn(from, "")
	if err != nil {
		return nil, err
	}
	path := grant.AuthMountPath(mount) + "/login"
	if fields["nonce"] == "" {
		delete(fields, "nonce")
	}
	secret, err := client.Logical().WriteWithContext(ctx, path, fields)
	if err != nil {
		return nil, fmt.Errorf("logging in at %s to role %v: %w", path, fields["role"], err)
	}
	if secret == nil || secret.Auth == nil {
		return nil, fmt.Errorf("logging in at %s to role %v: Vault answered without a token", path, fields["role"])
	}
	client.SetToken(secret.Auth.ClientToken)
	given, _ := fields["nonce"].(string)
	return &Session{Client: client, Auth: secret.Auth, Nonce: cmp.Or(secret.Auth.Metadata["nonce"], given)}, nil
}

// VaultClient returns a client of the lab's Vault with a token.
func (f *Fleet) VaultClient(token string) (*vaultapi.Client, error) {
	return f.ClientOn(Instance{}, token)
}

// ClientOn returns a client whose connections come from an instance's address.
func (f *Fleet) ClientOn(i Instance, token string) (*vaultapi.Client, error) {
	client, err := vaultClient(f.opts.VaultAddr, f.opts.VaultCAPEM, token, i.PrivateIP)
	if err == nil && f.opts.VaultNamespace != "" {
		client.SetNamespace(f.opts.VaultNamespace)
	}
	return client, err
}

// VaultClient returns a client that reads no environment variables, does not
// retry, and times out after callLimit.
func VaultClient(address, caPEM, token string) (*vaultapi.Client, error) {
	return vaultClient(address, caPEM, token, "")
}

func vaultClient(address, caPEM, token, source string) (*vaultapi.Client, error) {
	cfg := vaultapi.DefaultConfig()
	if cfg.Error != nil {
		return nil, fmt.Errorf("preparing a Vault client: %w", cfg.Error)
	}
	cfg.Address, cfg.MaxRetries, cfg.Timeout = address, 0, callLimit
	if err := cfg.ConfigureTLS(&vaultapi.TLSConfig{CACertBytes: bytes.TrimSpace([]byte(caPEM))}); err != nil {
		return nil, fmt.Errorf("trusting Vault's CA: %w", err)
	}
	dialFrom(cfg, source)
	client, err := vaultapi.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("preparing a Vault client for %s: %w", address, err)
	}
	client.SetToken(token)
	client.ClearNamespace()
	return client, nil
}
