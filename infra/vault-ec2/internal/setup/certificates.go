package setup

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const certificatesPage = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/regions-certs.html"

// readCertificates reads and checks the files of --certificate. It needs no server.
func (s *setup) readCertificates() error {
	s.regions = map[string]vault.IdentityCertificate{}
	for _, region := range slices.Sorted(maps.Keys(s.Certificates)) {
		file := s.Certificates[region]
		if !facts.IsRegion(region) {
			return fmt.Errorf("--certificate %s=%s: %q is not a region", region, file, region)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("--certificate %s: %w", region, err)
		}
		parsed, err := vault.ParseIdentityCertificate(string(text))
		if err == nil {
			err = parsed.Check(region)
		}
		if err != nil {
			return fmt.Errorf("--certificate %s=%s: %w. Nothing was written. The certificates are on %s. If AWS has another key for the region by now: "+
				"vault write %s type=identity aws_public_cert=@%s", region, file, err, certificatesPage, s.certificatePath(region), file)
		}
		s.regions[region] = parsed
	}
	return nil
}

func (s *setup) certificatePath(region string) string {
	return grant.AuthConfigPath(s.AuthMount, "certificate/"+region)
}

// checkCertificates returns an error if Vault has another certificate under a region's name: it may be another user's of the mount, for
// logins of another kind. A mount that does not exist is not checked.
func (s *setup) checkCertificates(ctx context.Context) error {
	if len(s.regions) == 0 {
		return nil
	}
	there, err := s.mounted(ctx, "sys/auth")
	if err != nil || there[s.AuthMount] == nil {
		return err
	}
	for _, region := range slices.Sorted(maps.Keys(s.regions)) {
		path := s.certificatePath(region)
		stored, err := s.readIfAny(ctx, path)
		if err != nil {
			return err
		}
		if stored != nil && !isStored(s.regions[region], stored) {
			return fault.Refusef("%s has another certificate (type %v), which may be in use. Nothing was written. If it is not: vault delete %s, and run this command again", path, stored["type"], path)
		}
	}
	return nil
}

// isStored reports whether Vault's answer has the certificate's key for logins by signature. AWS renews certificates with the same key, and
// Vault looks at the key alone.
func isStored(c vault.IdentityCertificate, stored map[string]any) bool {
	text, _ := stored["aws_public_cert"].(string)
	parsed, err := vault.ParseIdentityCertificate(text)
	return err == nil && parsed.SHA256 == c.SHA256 && stored["type"] == "identity"
}

// writeCertificates writes the certificates that Vault lacks.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#create-update-certificate-configuration
func (s *setup) writeCertificates(ctx context.Context) error {
	for _, region := range slices.Sorted(maps.Keys(s.regions)) {
		c, path := s.regions[region], s.certificatePath(region)
		switch {
		case vault.HasIdentityKey(region):
			s.notice("Vault has the key of %s built in: --certificate %s is not needed", region, region)
		case c.IsUnusual():
			s.notice("--certificate %s: the RSA key has %d bits, and AWS's certificates for the signature have 1024 elsewhere: the certificate must be the one under RSA, and not under RSA-2048", region, c.Bits)
		}
		stored, err := s.readIfAny(ctx, path)
		if err != nil && !s.awaits(path) {
			return err
		}
		if stored != nil && isStored(c, stored) {
			s.report("ok", path, "")
			continue
		}
		fields := map[string]any{"type": "identity", "aws_public_cert": encode(c.PEM)}
		s.report("create", path, "type identity")
		if s.DryRun {
			continue
		}
		if err := s.put(ctx, path, fields); err != nil {
			return err
		}
	}
	return nil
}

// put writes fields to a path.
func (s *setup) put(ctx context.Context, path string, fields map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := s.vault.WriteWithContext(ctx, path, fields); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// readIfAny returns the data at path, nil where nothing exists.
func (s *setup) readIfAny(ctx context.Context, path string) (map[string]any, error) {
	data, err := s.read(ctx, path)
	if errors.Is(err, errNotFound) {
		return nil, nil
	}
	return data, err
}

// encode returns a certificate in base64 without padding at its end: Vault decodes only base64 with padding, and Terraform's provider
// reads back only base64 without. Line feeds before the block make both the same.
func encode(certificate string) string {
	feeds := strings.Repeat("\n", (3-len(certificate)%3)%3)
	return base64.StdEncoding.EncodeToString([]byte(feeds + certificate))
}
