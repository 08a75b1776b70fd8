package storm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/wire"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The functions of a storm, by the template's names.
const (
	provision   = "ProvisionFunction"
	deprovision = "DeprovisionFunction"
	reconcile   = "ReconcileFunction"
)

// Options configure Start.
type Options struct {
	RepoRoot string
	Raft     bool // Vault on Raft with fsync, not in memory
	Progress func(format string, args ...any)
}

// Rig is a lab with the cloud in place of EC2, IAM, SQS and EventBridge.
type Rig struct {
	*lab.World
	cloud  *cloud
	opts   Options
	made   int // instances launched
	storms int // measured
}

// Start starts a rig.
func Start(ctx context.Context, o Options) (*Rig, error) {
	world, err := lab.Start(ctx, lab.Options{
		RepoRoot: o.RepoRoot, Progress: o.Progress, Parameters: lab.Parameters(), SetupVault: lab.SetupVault,
		VaultOnRaft: o.Raft, DeferFunctions: true,
	})
	if err != nil {
		return nil, err
	}
	r := &Rig{World: world, opts: o}
	if err := r.start(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Rig) start(ctx context.Context) (err error) {
	if r.cloud, err = startCloud(ctx); err != nil {
		return err
	}
	// The log would be most of the measured work, ours or bare, and would fill the disk.
	if err := r.Vault.Sys().DisableAuditWithContext(ctx, "file"); err != nil {
		return fmt.Errorf("switching Vault's audit log off: %w", err)
	}
	// Vault looks up an instance in EC2, and its role in IAM, at its login.
	client := grant.AuthConfigPath(r.AuthMount, "client")
	if _, err := r.Vault.Logical().WriteWithContext(ctx, client, map[string]any{"endpoint": r.cloud.URL, "iam_endpoint": r.cloud.URL}); err != nil {
		return fmt.Errorf("writing %s: %w", client, err)
	}
	return nil
}

// Close stops the cloud and the lab.
func (r *Rig) Close() error {
	var err error
	if r.cloud != nil {
		err = r.cloud.close()
	}
	return errors.Join(err, r.World.Close())
}

// launch adds n running instances, each with an address, a name and an ID of its own.
func (r *Rig) launch(n int) []fleet.Instance {
	const role = "alice-worker"
	instances := make([]fleet.Instance, n)
	for i := range instances {
		r.made++
		// An odd factor scatters the IDs like EC2's own.
		const odd = 0x9e3779b97f4a7c15
		// Three digits each: no address is a prefix of another.
		a, b, c := 100+r.made/156/156, 100+r.made/156%156, 100+r.made%156
		instances[i] = fleet.Instance{
			ID: fmt.Sprintf("i-0%016x", uint64(r.made)*odd), AccountID: parts.AccountID, Region: r.Region, AvailabilityZone: r.Region + "a",
			VPCID: "vpc-0123456789abcdef0", SubnetID: "subnet-0123456789abcdef0", ImageID: "ami-0123456789abcdef0", InstanceType: "m5.large",
			PrivateIP: fmt.Sprintf("127.%d.%d.%d", a, b, c), PrivateDNS: fmt.Sprintf("ip-127-%d-%d-%d.ec2.internal", a, b, c),
			Role: role, RoleARN: "arn:aws:iam::" + parts.AccountID + ":role/" + role, InstanceProfileID: "AIPA0123456789ABCDEF0",
			InstanceProfileARN: "arn:aws:iam::" + parts.AccountID + ":instance-profile/" + role,
			LaunchTime:         time.Now().Add(-time.Minute),
		}
	}
	r.cloud.add(instances...)
	return instances
}

// way is a set of functions with their connections to Vault, the ledger and the cloud.
type way struct {
	*lab.Line
	cloud     *tap.Tap // before the cloud, or nil
	rig       *Rig
	table     *dynamodb.Client // the ledger's
	vaultAddr string
	wire      net.Listener // adds the delay to Vault, or nil
}

// wayOptions configure a way.
type wayOptions struct {
	name     string
	tapAll   bool          // taps before Vault, DynamoDB and the cloud
	delay    time.Duration // added to every call to Vault
	inMemory bool          // the ledger is the cloud's
	one      bool          // only one sandbox of each function
}

// way starts functions that reach DynamoDB Local, Vault and the cloud directly or through taps.
func (r *Rig) way(ctx context.Context, o wayOptions) (*way, error) {
	w := &way{rig: r, table: r.Dynamo, vaultAddr: r.VaultAddr}
	cloudURL := r.cloud.URL
	if o.tapAll {
		var err error
		if w.cloud, err = tap.Start(tap.Options{Upstream: r.cloud.URL}); err != nil {
			return nil, err
		}
		cloudURL = w.cloud.URL
	}
	env := map[string]string{
		"AWS_ENDPOINT_URL": r.MotoURL, "AWS_ENDPOINT_URL_EC2": cloudURL, "AWS_ENDPOINT_URL_IAM": cloudURL, "AWS_ENDPOINT_URL_EVENTBRIDGE": cloudURL,
	}
	if o.inMemory {
		w.table = awsclient.DynamoDB(r.cloud.URL, r.Region)
	}
	if o.delay > 0 {
		var err error
		if w.wire, err = wire.Start(wire.Options{To: strings.TrimPrefix(r.VaultAddr, "https://"), Delay: o.delay}); err != nil {
			return nil, errors.Join(err, w.close())
		}
		w.vaultAddr = "https://" + w.wire.Addr().String()
	}
	if !o.tapAll {
		env["AWS_ENDPOINT_URL_DYNAMODB"], env["VAULT_ADDR"] = aws.ToString(w.table.Options().BaseEndpoint), w.vaultAddr
	}
	atOnce := r.mapping(provision).MaximumConcurrency
	if o.one {
		atOnce = 1
	}
	var err error
	w.Line, err = r.Line(ctx, lab.LineOptions{Name: o.name, Functions: []string{provision, deprovision, reconcile}, Env: env, Concurrency: atOnce})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *way) close() error {
	var errs []error
	if w.Line != nil {
		errs = append(errs, w.Close())
	}
	if w.cloud != nil {
		errs = append(errs, w.cloud.Close())
	}
	if w.wire != nil {
		errs = append(errs, w.wire.Close())
	}
	return errors.Join(errs...)
}

// mapping returns the template's event source mapping of a function's queue.
func (r *Rig) mapping(function string) stack.Mapping {
	for _, m := range r.Stack.Mappings {
		if m.FunctionLogicalID == function {
			return m
		}
	}
	return stack.Mapping{}
}

// poll returns a paused poller of a function's queue.
func (w *way) poll(function string) *queue.Poller {
	m := w.rig.mapping(function)
	config := awsclient.Config(w.rig.cloud.URL, w.rig.Region)
	config.HTTPClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	// The SDK retries a broken connection after up to 20 s, which would stall all four sandboxes.
	config.Retryer = func() aws.Retryer { return retry.AddWithMaxBackoffDelay(retry.NewStandard(), 20*time.Millisecond) }
	p := queue.Start(queue.Options{
		Client: sqs.NewFromConfig(config), QueueURL: m.QueueURL, QueueARN: m.QueueARN, Function: w.Functions[function],
		BatchSize: m.BatchSize, Window: m.Window, ReportBatchItemFailures: m.ReportBatchItemFailures,
		MaximumConcurrency: m.MaximumConcurrency, Logf: w.rig.opts.Progress,
	})
	p.Pause()
	return p
}

// invoke sends a function one event and returns the function's error, if any.
func invoke(ctx context.Context, f *sandbox.Function, body []byte) error {
	result, err := f.Invoke(ctx, body)
	if err == nil {
		err = result.Err()
	}
	if err != nil {
		return fmt.Errorf("invoking %s: %w", f.Name(), err)
	}
	return nil
}

// event returns an instance's state change as EventBridge delivers it.
func event(i fleet.Instance, state string) []byte { return fleet.Event(i, state, time.Now()) }
