package vault

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/hashicorp/vault/api"
)

// IAM logs in with an AWS identity: it signs GetCallerIdentity, and Vault sends that to STS.
// https://developer.hashicorp.com/vault/docs/auth/aws#iam-auth-method
type IAM struct {
	Mount       string
	Role        string
	ServerID    string // value of the X-Vault-AWS-IAM-Server-ID header; empty: no header
	Region      string // the region the signature is for
	Endpoint    string // https://sts.<region>.amazonaws.com/
	Credentials aws.CredentialsProvider
}

// Login signs and logs in. HashiCorp's helper for this needs the first AWS SDK, which doubles the binary.
func (l IAM) Login(ctx context.Context, c *Conn) (*api.SecretAuth, error) {
	// The signature is in the headers and not in the URL: Vault refuses a POST whose URL has a query.
	const body = "Action=GetCallerIdentity&Version=2011-06-15"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.Endpoint, strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the STS endpoint: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if l.ServerID != "" {
		request.Header.Set("X-Vault-AWS-IAM-Server-ID", l.ServerID)
	}
	credentials, err := l.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("the function's own AWS credentials: %w", err)
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, credentials, request, hex.EncodeToString(sum[:]), "sts", l.Region, time.Now()); err != nil {
		return nil, fmt.Errorf("signing GetCallerIdentity: %w", err)
	}
	request.Header.Set("Host", request.URL.Host) // signed, so Vault must repeat it
	headers, err := json.Marshal(request.Header)
	if err != nil {
		return nil, fmt.Errorf("writing the signed headers: %w", err)
	}
	encode := base64.StdEncoding.EncodeToString
	return login(ctx, c, l.Mount, map[string]any{
		"role":                    l.Role,
		"iam_http_request_method": http.MethodPost,
		"iam_request_url":         encode([]byte(l.Endpoint)),
		"iam_request_body":        encode([]byte(body)),
		"iam_request_headers":     encode(headers),
	}, fmt.Sprintf("role %q with the function's IAM role", l.Role))
}

// Secret returns a secret's string. Every login calls it, so that a rotated secret is found.
type Secret func(context.Context) ([]byte, error)

// AppRole logs in with a role ID and a secret ID, from a secret {"role_id","secret_id"}.
type AppRole struct {
	Mount  string
	Secret Secret
}

// Login reads the secret and logs in.
func (l AppRole) Login(ctx context.Context, c *Conn) (*api.SecretAuth, error) {
	var s struct {
		RoleID   string `json:"role_id"`
		SecretID string `json:"secret_id"`
	}
	if err := readSecret(ctx, l.Secret, &s); err != nil {
		return nil, err
	}
	if s.RoleID == "" || s.SecretID == "" {
		return nil, errors.New(`the secret of VAULT_LOGIN_SECRET_ARN must be {"role_id":"…","secret_id":"…"}`)
	}
	return login(ctx, c, l.Mount, map[string]any{"role_id": s.RoleID, "secret_id": s.SecretID}, "the role ID of VAULT_LOGIN_SECRET_ARN")
}

// Token uses the token in a secret {"token"}. The token must be allowed to look itself up and to renew itself.
type Token struct {
	Secret Secret
}

// Login reads the token and looks up its remaining time.
func (l Token) Login(ctx context.Context, c *Conn) (*api.SecretAuth, error) {
	var s struct {
		Token string `json:"token"`
	}
	if err := readSecret(ctx, l.Secret, &s); err != nil {
		return nil, err
	}
	if s.Token == "" {
		return nil, errors.New(`the secret of VAULT_LOGIN_SECRET_ARN must be {"token":"…"}`)
	}
	own, err := c.withToken(s.Token)
	if err != nil {
		return nil, err
	}
	answer, err := own.lookupSelf(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking up the token of VAULT_LOGIN_SECRET_ARN: %w", oneLine(err))
	}
	ttl, err := answer.TokenTTL()
	if err != nil {
		return nil, fmt.Errorf("looking up the token of VAULT_LOGIN_SECRET_ARN: %w", oneLine(err))
	}
	renewable, err := answer.TokenIsRenewable()
	if err != nil {
		return nil, fmt.Errorf("looking up the token of VAULT_LOGIN_SECRET_ARN: %w", oneLine(err))
	}
	return &api.SecretAuth{ClientToken: s.Token, LeaseDuration: int(ttl / time.Second), Renewable: renewable}, nil
}

// readSecret decodes a secret into a value. Its errors never hold the secret's text.
func readSecret(ctx context.Context, read Secret, into any) error {
	text, err := read(ctx)
	if err != nil {
		return fmt.Errorf("reading the secret of VAULT_LOGIN_SECRET_ARN: %w", err)
	}
	if json.Unmarshal(text, into) != nil {
		return errors.New("the secret of VAULT_LOGIN_SECRET_ARN is not a JSON object of strings")
	}
	return nil
}

// login writes fields to an auth mount's login path; as names the identity in errors.
func login(ctx context.Context, c *Conn, mount string, fields map[string]any, as string) (*api.SecretAuth, error) {
	resp, err := c.write(ctx, "auth/"+mount+"/login", fields)
	if resp != nil {
		defer func() { _ = resp.Body.Close() }() // after an error, or read to its end
	}
	if err != nil {
		return nil, fmt.Errorf("at auth/%s as %s: %w", mount, as, oneLine(err))
	}
	secret, err := api.ParseSecret(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("at auth/%s as %s: decoding the answer: %w", mount, as, err)
	}
	if secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "" {
		return nil, fmt.Errorf("at auth/%s as %s: Vault returned no token", mount, as)
	}
	return secret.Auth, nil
}
