package lab

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	vaultapi "github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

// Options configure a world. Only RepoRoot has no default.
type Options struct {
	RepoRoot       string
	CacheDir       string                           // <RepoRoot>/.cache
	Progress       func(format string, args ...any) // may be nil
	Template       string                           // <RepoRoot>/template.yaml
	BuildDir       string                           // <RepoRoot>/build, holds <function>/bootstrap
	StackName      string                           // lab
	Parameters     map[string]string                // besides VaultAddr, VaultNamespace and VaultCASecretArn, which the lab sets
	Region         string                           // us-east-1
	AuthMount      string                           // aws; the mount that instances log in to
	VaultNamespace string                           // of set-up, functions and instances; empty for the root one
	FunctionEnv    map[string]string                // overrides the functions' variables
	SetupVault     func(context.Context, *World) error
	OnBatch        func(function string, b queue.Batch) // called with every batch; may be nil
	Profiles       fs.FS                                // in place of the built-in ones; may be nil
	MoreProfiles   fs.FS                                // beside them; may be nil
	VaultFaultTap  bool                                 // the functions reach Vault through a tap
	VaultOnRaft    bool                                 // Vault writes to disk and waits for the writes
	VaultCluster   bool                                 // Vault is three nodes on Raft behind a balancer
	DeferFunctions bool                                 // leave functions and pollers to StartFunctions
	DeferStack     bool                                 // leave the stack to DeployStack, and so Vault and the functions to the caller
}

// Taps record and disturb the functions' calls. No other calls go through them.
type Taps struct {
	AWS    *tap.Tap // moto
	Dynamo *tap.Tap
	Vault  *tap.Tap // nil without VaultFaultTap
}

// Servers are the lab's server processes, for measuring what they use. Vault is nil with VaultCluster.
type Servers struct{ Vault, Moto, DynamoDB *parts.Process }

// World is the running lab. Maps are keyed by the template's logical IDs.
type World struct {
	Binary     vaultserver.Binary   // the program of Vault
	Vault      *vaultapi.Client     // with the root token, in VaultNamespace, not through a tap
	VaultAddr  string               // Vault itself; with VaultCluster its balancer
	Cluster    *vaultserver.Cluster // nil without VaultCluster
	VaultCAPEM string               // CAs of Vault and, with VaultFaultTap, of its tap
	VaultToken string               // root
	// VaultNamespace is the namespace of Vault's client, the set-up, the functions and the instances; empty for the root one.
	VaultNamespace string
	MotoURL        string           // moto itself, for Vault's own look-ups
	AWS            aws.Config       // moto itself, home account
	Dynamo         *dynamodb.Client // DynamoDB Local itself
	Stack          *stack.Stack
	Functions      map[string]*sandbox.Function
	Pollers        map[string]*queue.Poller // by the function they feed
	Taps           Taps
	Fleet          *fleet.Fleet
	AuditLog       string // the pattern of Vault's audit logs, JSON lines: one file, or several of each node of a cluster
	RunDir         string // this run's logs
	Profiles       string // the folder of the profiles that the functions and Vault's set-up use
	Servers        Servers
	AuthMount      string
	Region         string
	AccountID      string

	opts              Options
	workspace         *parts.Workspace
	expanded          map[string]any // the template
	vaultForFunctions string         // its address

	mu      sync.Mutex
	closers []func() error
	keys    map[string]string // names of functions by the IDs of their access keys
}

// Start starts a world. If it fails, it ends every part that it had started.
func Start(ctx context.Context, o Options) (*World, error) {
	o.Template = cmp.Or(o.Template, filepath.Join(o.RepoRoot, "template.yaml"))
	// A program's path must not depend on the working folder.
	build, err := filepath.Abs(cmp.Or(o.BuildDir, filepath.Join(o.RepoRoot, "build")))
	if err != nil {
		return nil, fmt.Errorf("resolving the build folder: %w", err)
	}
	o.BuildDir = build
	o.StackName, o.Region, o.AuthMount = cmp.Or(o.StackName, "lab"), cmp.Or(o.Region, "us-east-1"), cmp.Or(o.AuthMount, "aws")
	workspace, err := parts.NewWorkspace(o.RepoRoot, o.CacheDir, o.Progress)
	if err != nil {
		return nil, fmt.Errorf("preparing the lab: %w", err)
	}
	w := &World{
		opts: o, workspace: workspace, RunDir: workspace.Run, Region: o.Region, AuthMount: o.AuthMount, VaultNamespace: o.VaultNamespace,
		AccountID: parts.AccountID,
		Functions: map[string]*sandbox.Function{}, Pollers: map[string]*queue.Poller{}, keys: map[string]string{},
	}
	if err := w.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the lab (its logs are in %s): %w", w.RunDir, err), w.Close())
	}
	return w, nil
}

func (w *World) start(ctx context.Context) error {
	if err := w.writeProfiles(w.opts.Profiles, w.opts.MoreProfiles); err != nil {
		return err
	}
	vault, err := w.startParts(ctx)
	if err != nil {
		return err
	}
	if w.vaultForFunctions, err = w.startTaps(vault); err != nil {
		return err
	}
	if w.Fleet, err = fleet.New(fleet.Options{
		AWS: w.AWS, AccountID: w.AccountID, VaultAddr: w.VaultAddr, VaultCAPEM: w.VaultCAPEM, VaultNamespace: w.VaultNamespace,
		QueuesFor: func(state string) []string { return w.Stack.QueuesFor(state) },
	}); err != nil {
		return err
	}
	if w.opts.DeferStack {
		return nil
	}
	if err := w.deploy(ctx); err != nil {
		return err
	}
	if w.opts.SetupVault != nil {
		if err := w.opts.SetupVault(ctx, w); err != nil {
			return fmt.Errorf("setting Vault up: %w", err)
		}
		if err := w.Fleet.RegisterCertificate(ctx, w.Vault, w.AuthMount); err != nil {
			return fmt.Errorf("letting Vault trust the lab's identity documents: %w", err)
		}
	}
	if w.opts.DeferFunctions {
		return nil
	}
	return w.StartFunctions(ctx)
}

// startParts starts the processes side by side and expands the template meanwhile.
func (w *World) startParts(ctx context.Context) (*vaultserver.Server, error) {
	var (
		vault  *vaultserver.Server
		moto   *parts.Moto
		dynamo *parts.DynamoDBLocal
	)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		vault, err = w.startVault(ctx)
		return err
	})
	group.Go(func() (err error) {
		if moto, err = parts.StartMoto(ctx, w.workspace); err == nil {
			w.onClose(moto.Process.Stop)
		}
		return err
	})
	group.Go(func() (err error) {
		if dynamo, err = parts.StartDynamoDBLocal(ctx, w.workspace); err == nil {
			w.onClose(dynamo.Process.Stop)
		}
		return err
	})
	group.Go(func() error {
		python, err := parts.Python(ctx, w.workspace)
		if err != nil {
			return err
		}
		w.expanded, err = stack.Expand(ctx, python, w.opts.Template, w.Region)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	w.Binary, w.VaultAddr, w.VaultCAPEM, w.VaultToken, w.AuditLog = vault.Binary, vault.Address, vault.CAPEM, vault.RootToken, vault.AuditLog
	w.Servers = Servers{Vault: vault.Process, Moto: moto.Process, DynamoDB: dynamo.Process}
	w.MotoURL, w.AWS, w.Dynamo = moto.URL, awsclient.Config(moto.URL, w.Region), awsclient.DynamoDB(dynamo.URL, w.Region)

	var err error
	if w.Vault, err = w.rootClient(); err != nil {
		return nil, err
	}
	if w.Taps.AWS, err = w.tap(tap.Options{Upstream: moto.URL}); err != nil {
		return nil, err
	}
	w.Taps.Dynamo, err = w.tap(tap.Options{Upstream: dynamo.URL})
	return vault, err
}

// startVault starts Vault as the options say.
func (w *World) startVault(ctx context.Context) (*vaultserver.Server, error) {
	if w.opts.VaultCluster {
		cluster, err := vaultserver.StartCluster(ctx, w.workspace, vaultserver.ClusterOptions{})
		if err != nil {
			return nil, err
		}
		w.Cluster = cluster
		w.onClose(cluster.Stop)
		return &cluster.Server, nil
	}
	start := vaultserver.Start
	if w.opts.VaultOnRaft {
		start = vaultserver.StartOnRaft
	}
	vault, err := start(ctx, w.workspace)
	if err == nil {
		w.onClose(vault.Process.Stop)
	}
	return vault, err
}

// startTaps starts Vault's tap if VaultFaultTap is set, and returns the functions' address of Vault.
func (w *World) startTaps(vault *vaultserver.Server) (string, error) {
	if !w.opts.VaultFaultTap {
		return vault.Address, nil
	}
	serving, ca, err := tap.LoopbackTLS()
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(vault.CAPEM))
	if w.Taps.Vault, err = w.tap(tap.Options{Upstream: vault.Address, RootCAs: roots, TLS: serving, Service: "vault", Balanced: w.Cluster != nil}); err != nil {
		return "", err
	}
	w.VaultCAPEM += ca
	return w.Taps.Vault.URL, nil
}

func (w *World) tap(o tap.Options) (*tap.Tap, error) {
	t, err := tap.Start(o)
	if err == nil {
		w.onClose(t.Close)
	}
	return t, err
}

// deploy stores Vault's CA where the functions read it and creates the stack.
func (w *World) deploy(ctx context.Context) error {
	secret, err := secretsmanager.NewFromConfig(w.AWS).CreateSecret(ctx, &secretsmanager.CreateSecretInput{
		Name: aws.String("vault-ca"), SecretString: &w.VaultCAPEM,
	})
	if err != nil {
		return fmt.Errorf("storing Vault's CA in Secrets Manager: %w", err)
	}
	known := map[string]string{"VaultAddr": w.vaultForFunctions, "VaultNamespace": w.VaultNamespace, "VaultCASecretArn": aws.ToString(secret.ARN)}
	parameters := map[string]string{}
	declared, _ := w.expanded["Parameters"].(map[string]any)
	for name, value := range known {
		if _, ok := declared[name]; ok {
			parameters[name] = value
		}
	}
	maps.Copy(parameters, w.opts.Parameters)
	return w.DeployStack(ctx, parameters, nil)
}

// DeployStack creates the stack, or changes its parameters if it exists.
func (w *World) DeployStack(ctx context.Context, parameters, tags map[string]string) error {
	o := stack.Options{
		Name: w.opts.StackName, Expanded: w.expanded, Parameters: parameters, Tags: tags, BuildDir: w.opts.BuildDir,
		AccountID: w.AccountID, AWS: w.AWS, Dynamo: w.Dynamo,
	}
	var err error
	if w.Stack == nil {
		w.Stack, err = stack.Deploy(ctx, o)
		return err
	}
	changed, err := w.Stack.Update(ctx, o)
	if err == nil {
		w.Stack = changed
	}
	return err
}

// Close ends everything in the reverse order of its start.
func (w *World) Close() error {
	w.mu.Lock()
	closers := w.closers
	w.closers = nil
	w.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(errs...)
}

func (w *World) onClose(f func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = append(w.closers, f)
}
