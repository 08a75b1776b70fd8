package storm

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

// caller is the minimal client: bare HTTP over kept connections, without signatures, retries or decoding.
type caller struct {
	http  *http.Client
	token string
	at    map[string]string // address by service
}

// unsigned is the part of a signature that DynamoDB Local reads: the access key, by which it separates tables.
const unsigned = "AWS4-HMAC-SHA256 Credential=AKIALAB/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"

// caller returns a client with a function's own rights in Vault. Its batch token without the default policy is like the
// function's.
func (w *way) caller(ctx context.Context, function string) (*caller, error) {
	r := w.rig
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(w.CAPEM)) {
		return nil, errors.New("reading Vault's CA: no certificate in it")
	}
	policy := "ec2-provisioner-" + map[string]string{provision: rights.Provision, deprovision: rights.Deprovision}[function]
	secret, err := r.Vault.Logical().WriteWithContext(ctx, "auth/token/create", map[string]any{
		"policies": []string{policy}, "no_default_policy": true, "type": "batch", "ttl": "1h",
	})
	if err != nil {
		return nil, fmt.Errorf("making a token with the policy %s: %w", policy, err)
	}
	c := &caller{token: secret.Auth.ClientToken, at: map[string]string{
		vaultService: w.vaultAddr, dynamoService: aws.ToString(r.Dynamo.Options().BaseEndpoint), "": r.cloud.URL,
	}}
	c.http = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 128, DisableCompression: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}
	return c, nil
}

func (c *caller) call(ctx context.Context, s step, path, body string) error {
	address, known := c.at[s.service]
	if !known {
		address = c.at[""]
	}
	request, err := http.NewRequestWithContext(ctx, s.method, address+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	switch s.service {
	case vaultService:
		request.Header.Set("X-Vault-Token", c.token)
	case dynamoService:
		request.Header.Set("X-Amz-Target", "DynamoDB_20120810."+s.action)
		request.Header.Set("Content-Type", "application/x-amz-json-1.0")
		request.Header.Set("Authorization", unsigned)
	case "events":
		request.Header.Set("X-Amz-Target", "AWSEvents."+s.action)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it was read to its end
	var text bytes.Buffer
	if _, err := io.Copy(&text, response.Body); err != nil {
		return fmt.Errorf("%s %s: %w", s.service, s.action, err)
	}
	emptyFolder := response.StatusCode == http.StatusNotFound && strings.HasSuffix(path, "?list=true")
	if response.StatusCode != s.status && !emptyFolder {
		return fmt.Errorf("%s %s: status %d, where the function got %d: %.300s", s.service, s.action, response.StatusCode, s.status, text.String())
	}
	return nil
}
