package vaultserver_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

func TestServer_AnswersOverHTTP2AndStops(t *testing.T) {
	v, err := vaultserver.Start(t.Context(), partstest.Workspace(t))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Process.Stop()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(v.CAPEM))
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	res, err := client.Get(v.Address + "/v1/sys/health")
	if err != nil {
		t.Fatalf("reading Vault's health with the CA of its ready line: %v", err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || res.ProtoMajor != 2 {
		t.Errorf("health answered %s over %s, expected 200 (unsealed) over HTTP/2.0", res.Status, res.Proto)
	}
	if info, err := os.Stat(v.AuditLog); err != nil || info.Size() == 0 {
		t.Errorf("the audit log %s should contain the request that enabled it: %v", v.AuditLog, err)
	}
	if err := v.Process.Stop(); err != nil {
		t.Errorf("stopping the server: %v", err)
	}
}

func TestServer_HasTheEnginesInUse(t *testing.T) {
	w := partstest.Workspace(t)
	v, err := vaultserver.Start(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Process.Stop() })
	moto, err := parts.StartMoto(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { moto.Process.Stop() })
	root := client(t, v)
	ctx := t.Context()

	for _, kind := range []string{"pki", "kv", "ssh"} {
		if err := root.Sys().MountWithContext(ctx, "tried/"+kind, &vaultapi.MountInput{Type: kind}); err != nil {
			t.Errorf("mounting %s: %v", kind, err)
		}
	}
	write := func(path string, data map[string]any) {
		t.Helper()
		if _, err := root.Logical().WriteWithContext(ctx, path, data); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("an AppRole logs in", func(t *testing.T) {
		if err := root.Sys().EnableAuthWithOptionsWithContext(ctx, "approle", &vaultapi.EnableAuthOptions{Type: "approle"}); err != nil {
			t.Fatal(err)
		}
		write("auth/approle/role/tried", map[string]any{"role_id": "known", "bind_secret_id": true})
		secret, err := root.Logical().WriteWithContext(ctx, "auth/approle/role/tried/secret-id", nil)
		if err != nil {
			t.Fatal(err)
		}
		mustLogIn(t, v, "approle", map[string]any{"role_id": "known", "secret_id": secret.Data["secret_id"]})
	})

	t.Run("an assumed IAM role logs in with a signed request, and only with the server's ID", func(t *testing.T) {
		if err := root.Sys().EnableAuthWithOptionsWithContext(ctx, "aws", &vaultapi.EnableAuthOptions{Type: "aws"}); err != nil {
			t.Fatal(err)
		}
		write("auth/aws/config/client", map[string]any{
			"endpoint": moto.URL, "iam_endpoint": moto.URL, "sts_endpoint": moto.URL, "sts_region": "us-east-1",
			"access_key": "AKIALAB", "secret_key": "lab", "iam_server_id_header_value": "vault.example",
		})
		write("auth/aws/role/fn", map[string]any{
			"auth_type": "iam", "bound_iam_principal_arn": "arn:aws:iam::123456789012:role/fn", "resolve_aws_unique_ids": false,
		})
		mustLogIn(t, v, "aws", signedLogin(t, moto, "fn", "vault.example"))
		if _, err := client(t, v).Logical().WriteWithContext(ctx, "auth/aws/login", signedLogin(t, moto, "fn", "elsewhere")); err == nil || !strings.Contains(err.Error(), "Server-ID") {
			t.Errorf("a foreign server ID should be refused, seen %v", err)
		}
	})
}

func client(t *testing.T, v *vaultserver.Server) *vaultapi.Client {
	t.Helper()
	cfg := vaultapi.DefaultConfig()
	cfg.Address, cfg.MaxRetries = v.Address, 0
	if err := cfg.ConfigureTLS(&vaultapi.TLSConfig{CACertBytes: []byte(v.CAPEM)}); err != nil {
		t.Fatal(err)
	}
	c, err := vaultapi.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken(v.RootToken)
	return c
}

func mustLogIn(t *testing.T, v *vaultserver.Server, mount string, fields map[string]any) {
	t.Helper()
	secret, err := client(t, v).Logical().WriteWithContext(t.Context(), "auth/"+mount+"/login", fields)
	if err != nil || secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "" {
		t.Errorf("logging in at %s: expected a token, seen %+v (%v)", mount, secret, err)
	}
}

// signedLogin returns the login fields of a role assumed in moto, as a function sends them.
func signedLogin(t *testing.T, moto *parts.Moto, role, serverID string) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	assumed, err := sts.NewFromConfig(awsclient.Config(moto.URL, "us-east-1")).AssumeRole(ctx, &sts.AssumeRoleInput{
		RoleArn: aws.String("arn:aws:iam::123456789012:role/" + role), RoleSessionName: aws.String("tried"),
	})
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("Action=GetCallerIdentity&Version=2011-06-15")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://sts.us-east-1.amazonaws.com/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	req.Header.Set("X-Vault-AWS-IAM-Server-ID", serverID)
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, aws.Credentials{
		AccessKeyID: aws.ToString(assumed.Credentials.AccessKeyId), SecretAccessKey: aws.ToString(assumed.Credentials.SecretAccessKey),
		SessionToken: aws.ToString(assumed.Credentials.SessionToken),
	}, req, hex.EncodeToString(sum[:]), "sts", "us-east-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Host", req.URL.Host)
	headers, err := json.Marshal(req.Header)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	return map[string]any{
		"role": role, "iam_http_request_method": "POST", "iam_request_url": b64([]byte(req.URL.String())),
		"iam_request_body": b64(body), "iam_request_headers": b64(headers),
	}
}

func TestServer_OnRaftWritesToDisk(t *testing.T) {
	w := partstest.Workspace(t)
	v, err := vaultserver.StartOnRaft(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Process.Stop() })
	const name, text = "tried", `path "secret/*" { capabilities = ["read"] }`
	sys := client(t, v).Sys()
	if err := sys.PutPolicyWithContext(t.Context(), name, text); err != nil {
		t.Fatal(err)
	}
	if got, err := sys.GetPolicyWithContext(t.Context(), name); err != nil || got != text {
		t.Errorf("want the policy read back as written, got %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(w.Run, "raft", "vault.db")); err != nil || info.Size() == 0 {
		t.Errorf("want Vault's state in a file, so that writes wait for the disk: %v", err)
	}
}
