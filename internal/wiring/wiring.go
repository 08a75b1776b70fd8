// Package wiring builds each function's handler from its environment: settings, profiles, and the clients of AWS and Vault. The
// main packages in functions/ call it.
package wiring

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/certificates"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/holders"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/report"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/settings"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

// secretTimeout bounds one read of a secret.
const secretTimeout = 5 * time.Second

// revokeTime is how long a removal revokes certificates: the others of its batch wait for it.
const revokeTime = 5 * time.Second

// New builds provision or deprovision from the environment. It checks settings and built-in profiles, so that a wrong deployment
// fails at its start with an error that names the cause.
func New(ctx context.Context, name string, duties converge.Duties, getenv func(string) string) (*Function, error) {
	build := func(p *parts) Invoker {
		h := p.handler(name, duties)
		h.Hooks = handler.Hooks{
			Groups: autoscaling.New(p.instances.Config), Duties: duties, Prefix: p.settings.HookPrefix, ContinueOnRefusal: p.settings.HookContinues,
			NameWait: p.settings.NameWait,
		}
		if duties.Remove {
			h.Findings = handler.Findings{Severity: p.settings.QuarantineSeverity, OwnAccount: p.instances.OwnAccount}
		}
		return &h
	}
	return newFunction(ctx, getenv, kind{build: build, kept: profilesKept})
}

// NewReconcile builds reconcile from the environment, as New does. It is invoked rarely, and by operators who have just activated profiles:
// so each invocation asks for them.
func NewReconcile(ctx context.Context, getenv func(string) string) (*Function, error) {
	build := func(p *parts) *handler.ReconcileHandler {
		h := &handler.ReconcileHandler{
			Handler:    p.handler("reconcile", converge.Duties{Make: true, Remove: true}),
			Reconciler: p.reconciler(),
			Doctor:     p.doctor(),
			Explainer:  p.explainer(p.profiles.refused),
			Finder:     p.finder(),
			Sweeper:    p.sweeper(),
			Report:     p.report(),
			Namespace:  p.settings.Vault.Namespace,
			Rehearse:   p.rehearse,
		}
		if s := p.settings.Reconcile; s.QueueURL != "" {
			h.Own = queue.New(p.sendMessages(), s.QueueURL)
		}
		return h
	}
	without := func(b *base, why error) Invoker {
		p := b.parts(profileSet{set: &grant.Set{}})
		h := build(p)
		h.NoProfiles, h.Explainer = why, p.explainer(why)
		return h
	}
	return newFunction(ctx, getenv, kind{build: func(p *parts) Invoker { return build(p) }, without: without})
}

// reconciler returns the reconciler of this deployment.
func (p *parts) reconciler() *reconcile.Reconciler {
	s := p.settings.Reconcile
	o := reconcile.Options{
		Profiles: p.profiles.set, CheckProfiles: p.checkProfiles, Realm: p.realm(), Vault: p.vault, Ledger: p.ledger, Teardowns: p.ledger, Instances: p.instances,
		Places: s.Places(p.aws.Region), DetectOnly: s.DetectOnly, DeleteLimit: s.DeleteLimit,
		Adopt: p.settings.Adopt, OnShuttingDown: p.settings.OnShuttingDown, Now: time.Now,
	}
	if s.ConvergeQueueURL != "" {
		o.Queue = queue.New(p.sendMessages(), s.ConvergeQueueURL)
	}
	return &reconcile.Reconciler{Options: o}
}

// explainer returns what explains single instances. doubt is why the profiles are not the wanted ones; nil if they are.
func (p *parts) explainer(doubt error) *reconcile.Explainer {
	return &reconcile.Explainer{
		Reconciler: p.reconciler(), Groups: autoscaling.NewReader(p.instances.Config), Logins: p.vault, Waiters: p.ledger, Digest: p.profiles.digest, Doubt: doubt,
	}
}

// finder returns what finds the holders of names.
func (p *parts) finder() *holders.Finder {
	return &holders.Finder{
		Deployment: p.settings.DeploymentID, AuthMount: p.settings.AuthMount, Profiles: p.profiles.set, Ledger: p.ledger, Vault: p.vault,
		Instances: p.instances, Now: time.Now,
	}
}

// sweeper returns what finds and revokes the stored certificates of ended instances; nil if they are left valid.
func (p *parts) sweeper() handler.CertificateSweeper {
	if !p.settings.RevokeCertificates.Stored() {
		return nil
	}
	return &certificates.Sweeper{Deployment: p.settings.DeploymentID, Namespace: p.settings.Vault.Namespace, Profiles: p.profiles.set, Vault: p.vault, Ledger: p.ledger, NewRun: rand.Text, Now: time.Now}
}

// report returns what reads the ledger for a report.
func (p *parts) report() *report.Reader {
	return &report.Reader{
		Deployment: p.settings.DeploymentID, Region: p.aws.Region, Profiles: p.profiles.digest, Ledger: p.ledger, Accounts: p.instances, Now: time.Now,
	}
}

// checkProfiles returns an error if other profiles than those of the parts are used by now.
func (p *parts) checkProfiles(ctx context.Context) error {
	now, err := p.from.profiles(ctx)
	if err == nil && now.set != p.profiles.set {
		err = errors.New("other profiles became active during this run")
	}
	return err
}

func (p *parts) sendMessages() queue.API { return queue.API(sqs.NewFromConfig(p.aws).SendMessageBatch) }

// rehearse returns what compares the fleet by other profiles, which are not active. They are checked as active ones are.
func (p *parts) rehearse(packed []byte) (handler.Rehearsal, error) {
	b, err := bundle.Open(packed)
	if err != nil {
		return handler.Rehearsal{}, err
	}
	set, err := p.load(b.Files)
	if err != nil {
		return handler.Rehearsal{}, err
	}
	other := p.parts(profileSet{set: set, digest: b.Digest})
	return handler.Rehearsal{Reconciler: other.reconciler(), Doctor: other.doctor(), Digest: b.Digest}, nil
}

// doctor returns the doctor of this deployment. It checks reconcile's needs, which include those of the other functions.
func (p *parts) doctor() doctor.Doctor {
	scope := rights.Scope{Profiles: p.profiles.set, AuthMount: p.settings.AuthMount, Revoke: p.settings.RevokeCertificates.Leased(), RevokeStored: p.settings.RevokeCertificates.Stored()}
	return doctor.Doctor{Options: doctor.Options{
		Server: p.vault, Objects: p.vault, AWS: p.instances,
		Ledger: p.ledger,
		Table:  ledger.NewTable(ledger.NewTableAPI(dynamodb.NewFromConfig(p.aws)), p.settings.TableName),
		Region: p.aws.Region, Services: p.calledServices(),
		RevokesStored: p.settings.RevokeCertificates.Stored(), Places: p.settings.Reconcile.Places(p.aws.Region), Profiles: p.profiles.set, ProfilesRefused: p.profiles.refused, Deployment: p.settings.DeploymentID, Rights: rights.ByFunction(scope)[rights.Reconcile],
		Namespace: p.settings.Vault.Namespace, Version: version.Version(),
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

// base has what does not depend on the profiles.
type base struct {
	settings settings.Settings
	aws      aws.Config
	vault    *vault.Client
	ledger   *ledger.Ledger
	services *observe.Services
	log      *slog.Logger
	from     profileSource
}

// parts are the parts from which every handler is built.
type parts struct {
	*base
	profiles  profileSet
	instances *instance.Lookup
}

func newBase(ctx context.Context, getenv func(string) string) (*base, error) {
	s, err := settings.Load(getenv, os.DirFS(cmp.Or(getenv("LAMBDA_TASK_ROOT"), ".")))
	if err != nil {
		return nil, err
	}
	awsConfig, err := awsFromEnvironment(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	b := &base{settings: s, services: &observe.Services{}, log: observe.NewLogger(os.Stdout, s.LogLevel)}
	if s.Vault.Namespace != "" {
		b.log = b.log.With(observe.KeyNamespace, s.Vault.Namespace)
	}
	// Lambda's library logs a handler's error with the log package, which this makes a line of JSON too.
	slog.SetDefault(b.log)
	b.log.InfoContext(ctx, "started", observe.KeyVersion, version.Version())
	measure(&awsConfig, b.services)
	identify(&awsConfig)
	b.aws = awsConfig
	if b.vault, err = b.newVault(ctx); err != nil {
		return nil, err
	}
	b.ledger = ledger.New(ledger.NewAPI(dynamodb.NewFromConfig(awsConfig)), s.TableName, time.Now)
	return b, nil
}

// parts returns the parts for a set of profiles.
func (b *base) parts(profiles profileSet) *parts {
	s := b.settings
	return &parts{base: b, profiles: profiles, instances: instance.New(instance.Options{
		Config: b.aws, MemberRole: s.MemberRoleName, ExternalID: s.MemberExternalID,
		Accounts: s.AllowedAccounts, AnyAccount: slices.Contains(s.AllowedAccounts, settings.AnyAccount),
		NeedsRole: profiles.set.NeedsRole, Log: b.log,
	})}
}

func (p *parts) realm() grant.Realm {
	return grant.Realm{Deployment: p.settings.DeploymentID, AuthMount: p.settings.AuthMount}
}

func (p *parts) handler(name string, duties converge.Duties) handler.Handler {
	s := p.settings
	converger := &converge.Converger{Options: converge.Options{
		Duties:             duties,
		Profiles:           p.profiles.set,
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
		RevokeCertificates: s.RevokeCertificates.Leased(),
		NewOwner:           rand.Text,
		Now:                time.Now,
	}}
	if s.RevokeCertificates.Stored() && duties.Remove {
		converger.Certificates = certificates.Revoker{Vault: p.vault, Store: p.ledger, Now: time.Now, Limit: revokeTime, Log: p.log}
	}
	h := handler.Handler{
		Name: name, Deployment: s.DeploymentID, Instances: p.instances, Converger: converger,
		Log: p.log, Metrics: os.Stdout, Services: p.services, Now: time.Now,
		Readiness: handler.Readiness{Tagger: instance.NewTagger(p.instances), Key: s.ReadyTag},
		Profiles:  handler.ProfileState{Digest: p.profiles.digest, Refused: p.profiles.refused},
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

// newVault returns a client of Vault with the login that the settings choose.
func (b *base) newVault(ctx context.Context) (*vault.Client, error) {
	s, c := b.settings.Vault, b.aws
	o := vault.Options{Addr: s.Addr, Namespace: s.Namespace, Observe: b.services.Vault.Observe, Log: b.log, UserAgent: version.UserAgent(program)}
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
