package ask

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/certificates"
)

const (
	issuance  = `{"type":"response","request":{"path":"alice/pki/k8s/issue/i-0123456789abcdef0-kubelet"},"response":{"data":{"serial_number":"0a:0b","expiration":1767355200,"private_key":"hmac-sha256:x"}}}`
	issuedOne = "alice/pki/k8s/issue/i-0123456789abcdef0-kubelet 0a:0b 1767355200"
)

func TestAuditLog_NamesIssuedCertificates(t *testing.T) {
	for name, row := range map[string]struct{ log, want, err string }{
		"an issuance":                 {issuance + "\n", issuedOne, ""},
		"the last line without end":   {"\n" + issuance, issuedOne, ""},
		"a signature":                 {strings.Replace(issuance, "/issue/", "/sign/", 1), strings.Replace(issuedOne, "/issue/", "/sign/", 1), ""},
		"a request":                   {strings.Replace(issuance, `"response"`, `"request"`, 1), "", ""},
		"an error":                    {strings.Replace(issuance, `{"type"`, `{"error":"denied","type"`, 1), "", ""},
		"a role of an operator":       {strings.Replace(issuance, "i-0123456789abcdef0-kubelet", "operator", 1), "", ""},
		"another path":                {strings.Replace(issuance, "/issue/", "/roles/", 1), "", ""},
		"a hashed serial number":      {strings.Replace(issuance, "0a:0b", "hmac-sha256:abc", 1), "hashed alice/pki/k8s", ""},
		"a format that is not JSON":   {"<xml/>\n", "", "line 1"},
		"the second line is not JSON": {issuance + "\n{", "", "line 2"},
		"nothing":                     {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			err := readAuditLog(strings.NewReader(row.log), func(all []certificates.Issued) error {
				for _, i := range all {
					got = append(got, fmt.Sprintf("%s %s %d", i.Path, i.Serial, i.Expires))
				}
				return nil
			}, func(mount string) { got = append(got, "hashed "+mount) })
			if (err != nil) != (row.err != "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Fatalf("want the error %q, got %v", row.err, err)
			}
			if err == nil && strings.Join(got, ";") != row.want {
				t.Errorf("want %q, got %q", row.want, got)
			}
		})
	}
}

// A stream has no end: what it has named so far is recorded while it waits.
func TestAuditLog_OfAStreamIsSentAtOnce(t *testing.T) {
	in, out := io.Pipe()
	sent := make(chan int)
	go func() {
		_ = readAuditLog(in, func(all []certificates.Issued) error {
			sent <- len(all)
			return nil
		}, nil)
	}()
	for range 2 {
		go func() { _, _ = io.WriteString(out, issuance+"\n") }()
		if n := <-sent; n != 1 {
			t.Fatalf("want the certificate of one line, got %d", n)
		}
	}
	_ = out.Close()
}

func TestAuditLog_IsSentInParts(t *testing.T) {
	var parts []int
	if err := readAuditLog(strings.NewReader(strings.Repeat(issuance+"\n", 1200)), func(all []certificates.Issued) error {
		parts = append(parts, len(all))
		return nil
	}, nil); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range parts {
		total += n
	}
	if total != 1200 || slices.Max(parts) > 500 {
		t.Errorf("want all 1200 in parts of at most 500, got %v", parts)
	}
}
