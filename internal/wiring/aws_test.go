package wiring

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func lambdaEnvironment(t *testing.T) {
	t.Helper()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, value := range map[string]string{
		"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token",
		"AWS_EXECUTION_ENV": "AWS_Lambda_provided.al2023", "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
	} {
		t.Setenv(name, value)
	}
}

// The SDK's own loading defines the meaning of its variables.
func TestEnvironment_IsReadAsTheSDKReadsIt(t *testing.T) {
	for _, name := range []string{
		"", "AWS_DEFAULT_REGION=us-west-2", "AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:2", "AWS_ENDPOINT_URL_STS=http://127.0.0.1:3",
		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true", "AWS_USE_FIPS_ENDPOINT=true", "AWS_USE_DUALSTACK_ENDPOINT=true", "AWS_RETRY_MODE=adaptive", "AWS_MAX_ATTEMPTS=7",
		"AWS_SDK_UA_APP_ID=app", "AWS_ACCOUNT_ID_ENDPOINT_MODE=disabled", "AWS_DEFAULTS_MODE=standard", "AWS_DEFAULTS_MODE=auto",
	} {
		t.Run(name, func(t *testing.T) {
			lambdaEnvironment(t)
			if strings.HasPrefix(name, "AWS_IGNORE") {
				t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
			}
			if key, value, ok := strings.Cut(name, "="); ok {
				t.Setenv(key, value)
			}
			want, err := config.LoadDefaultConfig(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := awsFromEnvironment(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for what, pair := range map[string][2]any{
				"region": {got.Region, want.Region}, "endpoint": {aws.ToString(got.BaseEndpoint), aws.ToString(want.BaseEndpoint)},
				"attempts": {got.RetryMaxAttempts, want.RetryMaxAttempts}, "retry mode": {got.RetryMode, want.RetryMode}, "app": {got.AppID, want.AppID},
				"account mode": {got.AccountIDEndpointMode, want.AccountIDEndpointMode}, "defaults mode": {got.DefaultsMode, want.DefaultsMode},
				"DynamoDB": {effective(dynamodb.NewFromConfig(got).Options()), effective(dynamodb.NewFromConfig(want).Options())},
				"STS":      {aws.ToString(sts.NewFromConfig(got).Options().BaseEndpoint), aws.ToString(sts.NewFromConfig(want).Options().BaseEndpoint)},
			} {
				if pair[0] != pair[1] {
					t.Errorf("%s: got %v, want %v as the SDK loads it", what, pair[0], pair[1])
				}
			}
			have, err := got.Credentials.Retrieve(t.Context())
			if err != nil || have.AccessKeyID != "AKIA" || have.SecretAccessKey != "secret" || have.SessionToken != "token" {
				t.Errorf("want the credentials of the environment, got %v", err)
			}
		})
	}
}

// effective returns the client's options that depend on the environment.
func effective(o dynamodb.Options) [6]any {
	return [6]any{
		o.Region, aws.ToString(o.BaseEndpoint), o.EndpointOptions.UseFIPSEndpoint, o.EndpointOptions.UseDualStackEndpoint,
		o.RetryMaxAttempts, o.RetryMode,
	}
}

func TestEnvironment_MissingVariableIsNamed(t *testing.T) {
	for missing, want := range map[string]string{"AWS_REGION": "AWS_REGION", "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID"} {
		lambdaEnvironment(t)
		t.Setenv(missing, "")
		if _, err := awsFromEnvironment(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error that names %s, got %v", want, err)
		}
	}
}

func TestCABundle_IsTrusted(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	lambdaEnvironment(t)
	t.Setenv("AWS_CA_BUNDLE", file)
	c, err := awsFromEnvironment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.HTTPClient.Do(request)
	if err != nil {
		t.Fatalf("want a server with a certificate of the bundle trusted, got %v", err)
	}
	_ = answer.Body.Close()
	t.Setenv("AWS_CA_BUNDLE", "/nowhere")
	if _, err := awsFromEnvironment(t.Context()); err == nil || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("want an error that names AWS_CA_BUNDLE, got %v", err)
	}
}

// recorder is an HTTP client that records the hosts it is asked for and answers none.
type recorder struct{ hosts []string }

func (r *recorder) Do(request *http.Request) (*http.Response, error) {
	r.hosts = append(r.hosts, request.URL.Host)
	return nil, errors.New("no network in this test")
}

// A secret of another region is not found at the function's own endpoint.
func TestSecret_IsReadInItsOwnRegion(t *testing.T) {
	for secret, want := range map[string]string{
		"arn:aws:secretsmanager:eu-central-1:123456789012:secret:vault-AbCdEf":     "secretsmanager.eu-central-1.amazonaws.com",
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/vault-AbCdEf":   "secretsmanager.eu-west-1.amazonaws.com",
		"arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:vault-AbCdEf":    "secretsmanager.cn-north-1.amazonaws.com.cn",
		"arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:v-AbCdEf": "secretsmanager.us-gov-west-1.amazonaws.com",
	} {
		lambdaEnvironment(t)
		c, err := awsFromEnvironment(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen := &recorder{}
		c.HTTPClient, c.RetryMaxAttempts = seen, 1
		if _, err := readSecret(c, secret)(t.Context()); err == nil || !strings.Contains(err.Error(), secret) {
			t.Errorf("want an error that names %s, got %v", secret, err)
		}
		if len(seen.hosts) != 1 || seen.hosts[0] != want {
			t.Errorf("%s is read at %q, want %s", secret, seen.hosts, want)
		}
	}
}

// Vault compares the signed host with its own STS endpoint, which vault-ec2 setup sets to the region's ordinary one.
func TestLogin_IsSignedForTheOrdinaryEndpoint(t *testing.T) {
	lambdaEnvironment(t)
	t.Setenv("AWS_USE_FIPS_ENDPOINT", "true")
	t.Setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
	for region, want := range map[string]string{
		"us-east-1": "https://sts.us-east-1.amazonaws.com", "us-gov-west-1": "https://sts.us-gov-west-1.amazonaws.com", "cn-north-1": "https://sts.cn-north-1.amazonaws.com.cn",
	} {
		if got, err := stsEndpoint(t.Context(), region); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %s", region, got, err, want)
		}
	}
}
