package function

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/lifecycle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/settings"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// secretTimeout bounds one read of a secret.
const secretTimeout = 5 * time.Second

// New wires a function from the environment. It reads and checks settings and profiles, so that a wrong deployment
// fails at once and by name; it calls nobody.
func New(ctx context.Context, name string, duties lifecycle.Duties, getenv func(string) string) (*Handler, error) {
	s, err := settings.Load(getenv)
	if err != nil {
		return nil, err
	}
	profiles, err := loadProfiles(s.TemplatesDir)
	if err != nil {
		return nil, fmt.Errorf("loading the profiles: %w", err)
	}
	awsConfig, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	if awsConfig.Region == "" {
		return nil, errors.New("loading the AWS configuration: AWS_REGION is not set")
	}
	client, err := newVault(ctx, s.Vault, awsConfig)
	if err != nil {
		return nil, err
	}
	instances := instance.New(instance.Options{Config: awsConfig, MemberRole: s.MemberRoleName, ExternalID: s.DeploymentID})
	converger := &lifecycle.Converger{Options: lifecycle.Options{
		Duties:             duties,
		Profiles:           profiles,
		Realm:              grant.Realm{Deployment: s.DeploymentID, AuthMount: s.AuthMount},
		Vault:              client,
		Cutter:             client,
		Ledger:             ledger.New(ledger.NewAPI(dynamodb.NewFromConfig(awsConfig)), s.TableName, time.Now),
		Instances:          instances,
		Adopt:              s.Adopt,
		OnShuttingDown:     s.OnShuttingDown,
		RevokeCertificates: s.RevokeCertificates,
		NewOwner:           rand.Text,
		Now:                time.Now,
	}}
	return &Handler{
		Name: name, Deployment: s.DeploymentID, Instances: instances, Converger: converger,
		Log: observe.NewLogger(os.Stdout, s.LogLevel), Metrics: os.Stdout, Now: time.Now,
	}, nil
}

func loadProfiles(dir string) (*grant.Set, error) {
	var profiles fs.FS = templates.FS
	if dir != "" {
		profiles = os.DirFS(dir)
	}
	return grant.Load(profiles)
}

func newVault(ctx context.Context, s settings.Vault, c aws.Config) (*vault.Client, error) {
	secrets := secretsmanager.NewFromConfig(c)
	o := vault.Options{Addr: s.Addr, Namespace: s.Namespace}
	if s.CASecretARN != "" {
		o.CA = readSecret(secrets, s.CASecretARN)
	}
	switch s.LoginMethod {
	case settings.LoginAppRole:
		o.Login = vault.AppRole{Mount: s.LoginMount, Secret: readSecret(secrets, s.LoginSecretARN)}.Login
	case settings.LoginToken:
		o.Login = vault.Token{Secret: readSecret(secrets, s.LoginSecretARN)}.Login
	default:
		region := s.STSRegion
		if region == "" {
			region = c.Region
		}
		endpoint := s.STSEndpoint
		if endpoint == "" {
			// By the SDK's own rules, which know each partition's domain.
			resolved, err := sts.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, sts.EndpointParameters{Region: &region})
			if err != nil {
				return nil, fmt.Errorf("finding the STS endpoint of %s: %w", region, err)
			}
			endpoint = resolved.URI.String()
		}
		o.Login = vault.IAM{
			Mount: s.LoginMount, Role: s.LoginRole, ServerID: s.IAMServerID,
			Region: region, Endpoint: endpoint + "/", Credentials: c.Credentials,
		}.Login
	}
	return vault.New(o), nil
}

func readSecret(c *secretsmanager.Client, arn string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, secretTimeout)
		defer cancel()
		out, err := c.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &arn})
		if err != nil {
			return nil, fmt.Errorf("reading the secret %s: %w", arn, err)
		}
		if out.SecretString != nil {
			return []byte(*out.SecretString), nil
		}
		return out.SecretBinary, nil
	}
}
