package ask

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/certificates"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// auditLine is the part of a line that names a certificate.
// https://developer.hashicorp.com/vault/docs/audit/schema
type auditLine struct {
	Type    string `json:"type"`
	Error   string `json:"error"`
	Request struct {
		Path      string `json:"path"`
		Namespace struct {
			Path string `json:"path"`
		} `json:"namespace"`
	} `json:"request"`
	Response struct {
		Data struct {
			Serial  string `json:"serial_number"`
			Expires any    `json:"expiration"`
		} `json:"data"`
	} `json:"response"`
}

// readAuditLog calls each with the certificates that instances' PKI roles issued, some at a time: as soon as the log has no more lines at
// hand, since a stream has no end. Vault writes each request and each answer as one line.
// hashed is called with the mount of a certificate whose serial number is hashed.
func readAuditLog(from io.Reader, each func([]certificates.Issued) error, hashed func(mount string)) error {
	const atOnce = 500
	var batch []certificates.Issued
	log := bufio.NewReaderSize(from, 64<<10)
	for n := 1; ; n++ {
		line, err := log.ReadBytes('\n')
		isLast := errors.Is(err, io.EOF)
		if err != nil && !isLast {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		issued, is, err := issuedIn(line)
		mount, _, _ := grant.SplitIssuancePath(issued.Path)
		switch {
		case err != nil:
			return fmt.Errorf("reading line %d of the audit log: %w", n, err)
		case is && strings.HasPrefix(issued.Serial, "hmac-"):
			hashed(mount)
		case is:
			batch = append(batch, issued)
		}
		if isDue := len(batch) == atOnce || log.Buffered() == 0; isDue && len(batch) > 0 {
			if err := each(batch); err != nil {
				return err
			}
			batch = nil
		}
		if isLast {
			return nil
		}
	}
}

// issuedIn returns the certificate that a line of an audit log names. is is false for a line about anything else.
func issuedIn(line []byte) (issued certificates.Issued, is bool, err error) {
	var l auditLine
	if len(strings.TrimSpace(string(line))) == 0 {
		return issued, false, nil
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return issued, false, fmt.Errorf("it is not JSON, the format of an audit device by default: %w", err)
	}
	_, role, isIssuance := grant.SplitIssuancePath(l.Request.Path)
	_, isOurs := grant.InstanceOf(grant.KindPKIRole, role)
	if l.Type != "response" || l.Error != "" || !isIssuance || !isOurs || l.Response.Data.Serial == "" {
		return issued, false, nil
	}
	expires, _ := l.Response.Data.Expires.(float64)
	return certificates.Issued{Namespace: l.Request.Namespace.Path, Path: l.Request.Path, Serial: l.Response.Data.Serial, Expires: int64(expires)}, true, nil
}
