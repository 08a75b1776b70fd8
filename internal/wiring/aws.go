package wiring

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// awsFromEnvironment returns the SDK's configuration from the SDK's own variables, the only source that a function has. The SDK's
// own loading also looks for shared files, web identities, single sign-on and an instance's metadata, which makes the binary
// larger: docs/decisions/binary-size.md.
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
func awsFromEnvironment(ctx context.Context) (aws.Config, error) {
	env, err := config.NewEnvConfig()
	if err != nil {
		return aws.Config{}, err
	}
	switch {
	case env.Region == "":
		return aws.Config{}, errors.New("AWS_REGION is not set")
	case !env.Credentials.HasKeys():
		return aws.Config{}, errors.New("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")
	}
	c := aws.Config{
		Region: env.Region, ConfigSources: []any{env},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return env.Credentials, nil }),
		RetryMode:   env.RetryMode, RetryMaxAttempts: env.RetryMaxAttempts, AppID: env.AppID,
		DefaultsMode:          cmp.Or(env.DefaultsMode, aws.DefaultsModeLegacy),
		RuntimeEnvironment:    aws.RuntimeEnvironment{EnvironmentIdentifier: aws.ExecutionEnvironmentID(os.Getenv("AWS_EXECUTION_ENV")), Region: env.Region},
		AccountIDEndpointMode: cmp.Or(env.AccountIDEndpointMode, aws.AccountIDEndpointModePreferred),
	}
	if ignored, _, err := env.GetIgnoreConfiguredEndpoints(ctx); err == nil && !ignored && env.BaseEndpoint != "" {
		c.BaseEndpoint = &env.BaseEndpoint
	}
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.WriteBufferSize = 16 << 10 // a transaction of the ledger with its headers, in one write
	})
	if env.CustomCABundle != "" {
		if client, err = withCA(client, env.CustomCABundle); err != nil {
			return aws.Config{}, fmt.Errorf("AWS_CA_BUNDLE: %w", err)
		}
	}
	c.HTTPClient = client
	return c, nil
}

// withCA returns an HTTP client of the SDK that trusts the CA bundle of a file.
func withCA(client *awshttp.BuildableClient, file string) (*awshttp.BuildableClient, error) {
	bundle, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return client.WithTransportOptions(func(t *http.Transport) {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.TLSClientConfig.RootCAs = roots
	}), nil
}
