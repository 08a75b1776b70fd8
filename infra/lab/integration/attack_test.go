package integration

import (
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

const k8s = "alice_cluster/pki/k8s" // the worker profile's PKI mount

// allowed is the most that a certificate of one PKI role of one instance may contain.
type allowed struct {
	role, cn       string
	dns, addresses []string
	uris           []string
	organization   []string
	usage          x509.KeyUsage
	extUsage       []x509.ExtKeyUsage
}

// maxTTL is max_ttl of every role in the worker profile.
const maxTTL = 720 * time.Hour

// member is a logged-in worker with its allowed certificates.
type member struct {
	fleet.Instance
	session        *fleet.Session
	kubelet, proxy allowed
}

func join(t *testing.T) member {
	t.Helper()
	i := provisioned(t)
	session := login(t, i)
	return member{
		Instance: i, session: session,
		kubelet: allowed{
			role: i.ID + "-kubelet", cn: "system:node:" + i.PrivateDNS, dns: []string{i.PrivateDNS}, addresses: []string{i.PrivateIP},
			organization: []string{"system:nodes"}, usage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
			extUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		},
		proxy: allowed{
			role: i.ID + "-kube_proxy", cn: "system:kube-proxy", organization: []string{"system:node-proxier"},
			usage: x509.KeyUsageDigitalSignature, extUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		},
	}
}

// request is one HTTP request to Vault, well-formed or not.
type request struct {
	method, path, body string // method is PUT if empty; path is below /v1/
	header             map[string]string
	anonymous          bool
}

// send sends a request from the client's address, with its token unless it is anonymous. It follows redirects with method
// and body, as an attacker would.
func send(t *testing.T, c *vaultapi.Client, r request) (status int, body []byte) {
	t.Helper()
	target := c.Address() + "/v1/" + r.path
	for range 3 {
		out, err := http.NewRequestWithContext(t.Context(), cmp.Or(r.method, http.MethodPut), target, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		out.Header.Set("Content-Type", "application/json")
		for k, v := range r.header {
			out.Header.Set(k, v)
		}
		if !r.anonymous {
			out.Header.Set("X-Vault-Token", c.Token())
		}
		in, err := c.CloneConfig().HttpClient.Do(out)
		if err != nil {
			t.Fatalf("%s %s: %v", out.Method, r.path, err)
		}
		body, err = io.ReadAll(in.Body)
		in.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		to, err := in.Location()
		if in.StatusCode/100 != 3 || err != nil {
			return in.StatusCode, body
		}
		target = to.String()
	}
	t.Fatalf("%s is redirected for ever", r.path)
	return 0, nil
}

// The results of an attempt.
const (
	refused  = "refused"
	harmless = "harmless certificate"
)

// judge classifies an answer to a request for a certificate as refused or as harmless, a certificate within own. Anything
// else is an error.
func judge(own allowed, status int, body []byte) (string, *x509.Certificate, error) {
	switch {
	case status >= 400 && status < 500, status == 500 && unreadable(body):
		return refused, nil, nil
	case status >= 500:
		return "", nil, fmt.Errorf("want a refusal (4xx), got a failure of Vault's, which proves nothing: %d %.300s", status, body)
	}
	var answer struct{ Data struct{ Certificate string } }
	if err := json.Unmarshal(body, &answer); err != nil && len(body) > 0 {
		return "", nil, fmt.Errorf("reading the answer %d %.300s: %w", status, body, err)
	}
	block, rest := pem.Decode([]byte(answer.Data.Certificate))
	for block != nil && block.Type != "CERTIFICATE" { // a bundle starts with the key
		block, rest = pem.Decode(rest)
	}
	if block == nil || own.role == "" {
		return "", nil, fmt.Errorf("want a refusal, got %d %.300s: a worker must have no such power", status, body)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", nil, err
	}
	if err := check(own, cert); err != nil {
		return "", cert, err
	}
	return harmless, cert, nil
}

// unreadable reports whether Vault could not parse the request body, which it answers with 500.
func unreadable(body []byte) bool {
	return strings.Contains(string(body), "duplicate key ") || strings.Contains(string(body), "after top-level value")
}

// check compares every part of a certificate that names its holder or its use with the allowed values.
func check(own allowed, cert *x509.Certificate) error {
	var faults []string
	differ := func(ok bool, part string, want, got any) {
		if !ok {
			faults = append(faults, fmt.Sprintf("%s: want %v, got %v", part, want, got))
		}
	}
	differ(cert.Subject.CommonName == own.cn, "common name", own.cn, cert.Subject.CommonName)
	differ(slices.Equal(cert.Subject.Organization, own.organization), "organization", own.organization, cert.Subject.Organization)
	differ(len(cert.Subject.Names) == 1+len(own.organization), "subject", "the common name and the organization alone", cert.Subject)
	for _, name := range cert.DNSNames {
		differ(slices.Contains(own.dns, name), "DNS name", own.dns, name)
	}
	for _, a := range cert.IPAddresses {
		differ(slices.Contains(own.addresses, a.String()), "address", own.addresses, a)
	}
	for _, u := range cert.URIs {
		differ(slices.Contains(own.uris, u.String()), "URI", own.uris, u)
	}
	differ(len(cert.EmailAddresses) == 0, "email names", "none", cert.EmailAddresses)
	n, err := alternativeNames(cert)
	differ(err == nil && n == len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.URIs), "names of other kinds", "none", fmt.Sprint(n, " names in all ", err))
	differ(!cert.IsCA, "CA", false, cert.IsCA)
	differ(cert.KeyUsage == own.usage, "key usage", own.usage, cert.KeyUsage)
	ext := slices.Sorted(slices.Values(cert.ExtKeyUsage))
	differ(slices.Equal(ext, own.extUsage) && len(cert.UnknownExtKeyUsage) == 0, "extended key usage", own.extUsage, fmt.Sprint(ext, cert.UnknownExtKeyUsage))
	differ(time.Until(cert.NotAfter) <= maxTTL, "end", "within "+maxTTL.String(), cert.NotAfter)
	if len(faults) > 0 {
		return fmt.Errorf("the certificate contains more than the worker's own, so it could pass for another: %s", strings.Join(faults, "; "))
	}
	return nil
}

// alternativeNames counts the subject alternative names of every kind, also those that crypto/x509 does not parse.
func alternativeNames(cert *x509.Certificate) (int, error) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			var names []asn1.RawValue
			_, err := asn1.Unmarshal(e.Value, &names)
			return len(names), err
		}
	}
	return 0, nil
}

// tally counts attempts by class.
type tally struct {
	classes []string
	got     map[string]map[string]int
}

func (c *tally) add(class, what string) {
	if c.got == nil {
		c.got = map[string]map[string]int{}
	}
	if c.got[class] == nil {
		c.classes = append(c.classes, class)
		c.got[class] = map[string]int{}
	}
	c.got[class]["attempts"]++
	c.got[class][what]++
}

// report logs the table that SECURITY.md quotes. It fails for a class without attempts.
func (c *tally) report(t *testing.T, want ...string) {
	t.Helper()
	var out strings.Builder
	total := map[string]int{}
	fmt.Fprintf(&out, "\n| class | attempts | %s | %s |\n| --- | --- | --- | --- |\n", refused, harmless)
	for _, class := range c.classes {
		n := c.got[class]
		for k, v := range n {
			total[k] += v
		}
		fmt.Fprintf(&out, "| %s | %d | %d | %d |\n", class, n["attempts"], n[refused], n[harmless])
	}
	fmt.Fprintf(&out, "| all | %d | %d | %d |", total["attempts"], total[refused], total[harmless])
	t.Log(out.String())
	for _, class := range want {
		if c.got[class]["attempts"] == 0 {
			t.Errorf("no attempt of the class %q was made", class)
		}
	}
	for _, class := range c.classes {
		if !slices.Contains(want, class) {
			t.Errorf("the class %q is not in the list of classes", class)
		}
	}
}
