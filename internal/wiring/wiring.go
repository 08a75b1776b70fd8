// Package wiring builds each function's handler from its environment: settings, profiles, and the clients of AWS and Vault. The
// main packages in functions/ call it.
package wiring

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/settings"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// secretTimeout bounds one read of a secret.
const secretTimeout = 5 * time.Second

// New builds the handler of provision or deprovision from the environment. It checks settings and profiles, so that a wrong
// deployment fails at its start with an error that names the cause. It makes no calls.
func New(ctx context.Context, name string, duties converge.Duties, getenv func(string) string) (*handler.Handler, error) {
	p, err := newParts(ctx, getenv)
	if err != nil {
		return nil, err
	}
	h := p.handler(name, duties)
	h.Hooks = handler.Hooks{
		Groups: autoscaling.New(p.instances.Config), Duties: duties, Prefix: p.settings.HookPrefix, ContinueOnRefusal: p.settings.HookContinues,
		NameWait: p.settings.NameWait,
	}
	return &h, nil
}

// NewReconcile builds the handler of reconcile from the environment, as New does.
func NewReconcile(ctx context.Context, getenv func(string) string) (*handler.ReconcileHandler, error) {
	p, err := newParts(ctx, getenv)
	if err != nil {
		return nil, err
	}
	s := p.settings.Reconcile
	o := reconcile.Options{
		Profiles: p.profiles, Realm: p.realm(), Vault: p.vault, Ledger: p.ledger, Teardowns: p.ledger, Instances: p.instances,
		Places: s.Places(p.aws.Region), DetectOnly: s.DetectOnly, DeleteLimit: s.DeleteLimit,
		Adopt: p.settings.Adopt, OnShuttingDown: p.settings.OnShuttingDown, Now: time.Now,
	}
	send := queue.API(sqs.NewFromConfig(p.aws).SendMessageBatch)
	if s.ConvergeQueueURL != "" {
		o.Queue = queue.New(send, s.ConvergeQueueURL)
	}
	h := &handler.ReconcileHandler{
		Handler:    p.handler("reconcile", converge.Duties{Make: true, Remove: true}),
		Reconciler: &reconcile.Reconciler{Options: o},
		Namespace:  p.settings.Vault.Namespace,
	}
	h.Doctor = p.doctor(s.Places(p.aws.Region))
	if s.QueueURL != "" {
		h.Own = queue.New(send, s.QueueURL)
	}
	return h, nil
}

// doctor returns the doctor of this deployment. It checks reconcile's needs, which include those of the other functions.
func (p *parts) doctor(places []facts.Place) doctor.Doctor {
	scope := rights.Scope{Profiles: p.profiles, AuthMount: p.settings.AuthMount, Revoke: p.settings.RevokeCertificates}
	return doctor.Doctor{Options: doctor.Options{
		Server: p.vault, Objects: p.vault, AWS: p.instances,
		Ledger: p.ledger,
		Table:  ledger.NewTable(ledger.NewTableAPI(dynamodb.NewFromConfig(p.aws)), p.settings.TableName),
		Region: p.aws.Region, Services: p.calledServices(),
		Places: places, Profiles: p.profiles, Deployment: p.settings.DeploymentID, Rights: rights.ByFunction(scope)[rights.Reconcile],
		Namespace: p.settings.Vault.Namespace,
		VaultHost: hostOf(p.settings.Vault.Addr), Resolve: net.DefaultResolver.LookupCNAME,
		AuthMount: p.settings.AuthMount, LoginMount: p.settings.Vault.LoginMount,
		RoleNames: roleNames(p.settings.Vault.LoginRole),
	}}
}

// hostOf returns the name in an address; empty for an IP address.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || net.ParseIP(u.Hostname()) != nil {
		return ""
	}
	return u.Hostname()
}

// parts are the parts from which every handler is built.
type parts struct {
	settings  settings.Settings
	profiles  *grant.Set
	aws       aws.Config
	vault     *vault.Client
	ledger    *ledger.Ledger
	instances *instance.Lookup
	services  *observe.Services
	log       *slog.Logger
}

func newParts(ctx context.Context, getenv func(string) string) (*parts, error) {
	s, err := settings.Load(getenv, os.DirFS(cmp.Or(getenv("LAMBDA_TASK_ROOT"), ".")))
	if err != nil {
		return nil, err
	}
	profiles, err := loadProfiles(s)
	if err != nil {
		return nil, fmt.Errorf("loading the profiles: %w", err)
	}
	for _, profile := range profiles.Profiles {
		if s.ReadyTag != "" && profile.UsesTag(s.ReadyTag) {
			return nil, fmt.Errorf("READY_TAG: profile %s uses the tag %s: a tag that the functions write must not decide what they grant; choose another key", profile.Name, s.ReadyTag)
		}
	}
	awsConfig, err := awsFromEnvironment(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	p := &parts{settings: s, profiles: profiles, services: &observe.Services{}, log: observe.NewLogger(os.Stdout, s.LogLevel)}
	if s.Vault.Namespace != "" {
		p.log = p.log.With(observe.KeyNamespace, s.Vault.Namespace)
	}
	// Lambda's library logs a handler's error with the log package, which this makes a line of JSON too.
	slog.SetDefault(p.log)
	for _, profile := range profiles.Profiles {
		if profile.Barred != nil {
			p.log.ErrorContext(ctx, "a profile breaks a rule: nothing new is granted by it, and existing grants stay", observe.KeyProfile, profile.Name, observe.KeyError, profile.Barred)
		}
	}
	measure(&awsConfig, p.services)
	p.aws = awsConfig
	if p.vault, err = p.newVault(ctx); err != nil {
		return nil, err
	}
	p.ledger = ledger.New(ledger.NewAPI(dynamodb.NewFromConfig(awsConfig)), s.TableName, time.Now)
	p.instances = instance.New(instance.Options{
		Config: awsConfig, MemberRole: s.MemberRoleName, ExternalID: s.MemberExternalID,
		Accounts: s.AllowedAccounts, AnyAccount: slices.Contains(s.AllowedAccounts, settings.AnyAccount),
		NeedsRole: profiles.NeedsRole, Log: p.log,
	})
	return p, nil
}

func (p *parts) realm() grant.Realm {
	return grant.Realm{Deployment: p.settings.DeploymentID, AuthMount: p.settings.AuthMount}
}

func (p *parts) handler(name string, duties converge.Duties) handler.Handler {
	s := p.settings
	converger := &converge.Converger{Options: converge.Options{
		Duties:             duties,
		Profiles:           p.profiles,
		Realm:              p.realm(),
		Vault:              p.vault,
		Cutter:             p.vault,
		Ledger:             p.wakingLedger(),
		Records:            p.ledger,
		Waiters:            p.ledger,
		Instances:          p.instances,
		Mounts:             &converge.MountMarks{Read: p.vault.Read, Now: time.Now},
		Lists:              &converge.Lists{List: p.vault.List, Log: p.log, Now: time.Now},
		Adopt:              s.Adopt,
		OnShuttingDown:     s.OnShuttingDown,
		RevokeCertificates: s.RevokeCertificates,
		NewOwner:           rand.Text,
		Now:                time.Now,
	}}
	h := handler.Handler{
		Name: name, Deployment: s.DeploymentID, Instances: p.instances, Converger: converger,
		Log: p.log, Metrics: os.Stdout, Services: p.services, Now: time.Now,
		Readiness: handler.Readiness{Tagger: instance.NewTagger(p.instances), Key: s.ReadyTag},
	}
	if s.EventBus != "" {
		h.Bus = audit.NewEventBridge(eventbridge.NewFromConfig(p.aws).PutEvents, s.EventBus)
	}
	return h
}

// wakingLedger returns the ledger that wakes the instances that wait for a released name.
func (p *parts) wakingLedger() converge.Ledger {
	if p.settings.ProvisionQueueURL == "" {
		return p.ledger
	}
	to := queue.New(sqs.NewFromConfig(p.aws).SendMessageBatch, p.settings.ProvisionQueueURL)
	return converge.Waker{Ledger: p.ledger, Waiters: p.ledger, Queue: to, Log: p.log, Now: time.Now}
}

// loadProfiles loads the built-in profiles, or those of a folder. It also loads a profile that breaks a rule which an earlier
// version did not have, since instances may hold grants of it.
func loadProfiles(s settings.Settings) (*grant.Set, error) {
	var profiles fs.FS = templates.FS
	if s.TemplatesDir != "" {
		profiles = os.DirFS(s.TemplatesDir)
	}
	return grant.LoadDeployed(profiles, grant.Rules{MaxTTL: s.MaxCertificateTTL, RolePrefix: rolePrefix(s.Vault.LoginRole)})
}

// newVault returns a client of Vault with the login that the settings choose.
func (p *parts) newVault(ctx context.Context) (*vault.Client, error) {
	s, c := p.settings.Vault, p.aws
	o := vault.Options{Addr: s.Addr, Namespace: s.Namespace, Observe: p.services.Vault.Observe, Log: p.log}
	if s.CASecretARN != "" {
		o.CA = readSecret(c, s.CASecretARN)
	}
	switch s.LoginMethod {
	case settings.LoginAppRole:
		o.Login = vault.AppRole{Mount: s.LoginMount, Secret: readSecret(c, s.LoginSecretARN)}.Login
	case settings.LoginToken:
		o.Login = vault.Token{Secret: readSecret(c, s.LoginSecretARN)}.Login
	default:
		region := s.STSRegion
		if region == "" {
			region = c.Region
		}
		endpoint := s.STSEndpoint
		if endpoint == "" {
			var err error
			if endpoint, err = stsEndpoint(ctx, region); err != nil {
				return nil, err
			}
		}
		o.Login = vault.IAM{
			Mount: s.LoginMount, Role: s.LoginRole, ServerID: s.IAMServerID,
			Region: region, Endpoint: endpoint + "/", Credentials: c.Credentials,
		}.Login
	}
	return vault.New(o), nil
}

// stsEndpoint returns the address for which the login is signed: the region's ordinary one, whatever endpoints the functions
// call themselves. The request is Vault's, and Vault sends it to its own sts_endpoint.
func stsEndpoint(ctx context.Context, region string) (string, error) {
	// The SDK's own rules know each partition's domain.
	resolved, err := sts.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, sts.EndpointParameters{Region: &region})
	if err != nil {
		return "", fmt.Errorf("finding the STS endpoint of %s: %w", region, err)
	}
	return resolved.URI.String(), nil
}

// readSecret returns a function that reads a secret, in the region that its ARN names: each region's endpoint knows only its own
// secrets.
func readSecret(c aws.Config, secret string) func(context.Context) ([]byte, error) {
	client := secretsmanager.NewFromConfig(c, func(o *secretsmanager.Options) {
		if parsed, err := arn.Parse(secret); err == nil {
			o.Region = parsed.Region
		}
	})
	return func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, secretTimeout)
		defer cancel()
		out, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &secret})
		if err != nil {
			return nil, fmt.Errorf("reading the secret %s: %w", secret, err)
		}
		if out.SecretString != nil {
			return []byte(*out.SecretString), nil
		}
		return out.SecretBinary, nil
	}
}
