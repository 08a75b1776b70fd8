package lab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// sandboxes is the most processes of one function at a time. A mapping's own
// limit is lower, so that direct invocations always find a free sandbox.
const sandboxes = 10

// StartFunctions prepares the stack's functions for invocations and starts the
// pollers of their queues. Start calls it unless DeferFunctions is set.
func (w *World) StartFunctions(ctx context.Context) error {
	if err := w.PrepareFunctions(ctx); err != nil {
		return err
	}
	w.StartPollers()
	return nil
}

// PrepareFunctions prepares the functions for invocations without starting pollers.
func (w *World) PrepareFunctions(ctx context.Context) error {
	for id, f := range w.Stack.Functions {
		binary := filepath.Join(f.CodeDir, "bootstrap")
		if _, err := os.Stat(binary); err != nil {
			return fmt.Errorf("looking for the binary of %s (run make build): %w", id, err)
		}
		env, err := w.functionEnv(ctx, f)
		if err != nil {
			return fmt.Errorf("preparing %s: %w", id, err)
		}
		function := sandbox.NewFunction(sandbox.Options{
			Name: f.Name, ARN: f.ARN, Binary: binary, Env: env, MemoryMB: f.MemoryMB,
			Timeout: time.Duration(f.TimeoutSeconds) * time.Second, Log: w.workspace.Log(id),
		}, sandboxes)
		w.Functions[id] = function
		w.onClose(function.Close)
	}
	return nil
}

// StartPollers starts one poller for each queue that feeds a prepared function.
func (w *World) StartPollers() {
	client := sqs.NewFromConfig(w.AWS)
	for _, m := range w.Stack.Mappings {
		o := queue.Options{
			Client: client, QueueURL: m.QueueURL, QueueARN: m.QueueARN, Function: w.Functions[m.FunctionLogicalID],
			BatchSize: m.BatchSize, Window: m.Window, ReportBatchItemFailures: m.ReportBatchItemFailures,
			MaximumConcurrency: m.MaximumConcurrency, Logf: w.opts.Progress,
		}
		if w.opts.OnBatch != nil {
			o.OnBatch = func(b queue.Batch) { w.opts.OnBatch(m.FunctionLogicalID, b) }
		}
		poller := queue.Start(o)
		w.Pollers[m.FunctionLogicalID] = poller
		w.onClose(poller.Close)
	}
}

// FunctionEnv returns the environment of the function with a logical ID, for a caller's own sandbox.
func (w *World) FunctionEnv(ctx context.Context, logicalID string) (map[string]string, error) {
	f, ok := w.Stack.Functions[logicalID]
	if !ok {
		return nil, fmt.Errorf("the stack has no function %s", logicalID)
	}
	return w.functionEnv(ctx, f)
}

// Caller returns the logical ID of the function that made a tapped call; empty for any other caller.
func (w *World) Caller(c tap.Call) string {
	w.mu.Lock()
	name := w.keys[c.AccessKey]
	w.mu.Unlock()
	for id, f := range w.Stack.Functions {
		if name != "" && f.Name == name {
			return id
		}
	}
	return ""
}

// functionEnv returns the function's environment as deployed, with its own role's
// credentials and the lab's endpoints.
func (w *World) functionEnv(ctx context.Context, f stack.Function) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := sts.NewFromConfig(w.AWS).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &f.RoleARN, RoleSessionName: &f.Name})
	if err != nil {
		return nil, fmt.Errorf("assuming its role %s: %w", f.RoleARN, err)
	}
	w.mu.Lock()
	w.keys[aws.ToString(out.Credentials.AccessKeyId)] = f.Name
	w.mu.Unlock()
	env := maps.Clone(f.Env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, map[string]string{
		"AWS_REGION": w.Region, "AWS_DEFAULT_REGION": w.Region,
		"AWS_ACCESS_KEY_ID":         aws.ToString(out.Credentials.AccessKeyId),
		"AWS_SECRET_ACCESS_KEY":     aws.ToString(out.Credentials.SecretAccessKey),
		"AWS_SESSION_TOKEN":         aws.ToString(out.Credentials.SessionToken),
		"AWS_ENDPOINT_URL":          w.Taps.AWS.URL,
		"AWS_ENDPOINT_URL_DYNAMODB": w.Taps.Dynamo.URL,
	})
	if p := env["PROFILES"]; p == "" || p == "built-in" { // otherwise the ledger has the profiles
		env["TEMPLATES_DIR"] = w.Profiles
	}
	maps.Copy(env, w.opts.FunctionEnv)
	return env, nil
}
