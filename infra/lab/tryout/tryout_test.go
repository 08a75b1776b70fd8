package tryout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/lambdaapi"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
)

const (
	name          = "tryout"
	root          = "../../.."
	memberAccount = "210987654321"
	secondRegion  = "eu-west-1"
	// patience is longer than a message that comes back once.
	patience = 100 * time.Second
)

// account is the lab as an account: what sam deploy makes, and the functions that run of it.
type account struct {
	t     *testing.T
	world *lab.World

	mu         sync.Mutex
	parameters map[string]string
	functions  map[string]*slot
}

// slot is a function that an update replaces.
type slot struct {
	name string
	mu   sync.Mutex
	now  *sandbox.Function
}

// Name returns the function's name.
func (s *slot) Name() string { return s.name }

// Invoke runs an event with the function as it is now.
func (s *slot) Invoke(ctx context.Context, payload []byte) (sandbox.Result, error) {
	s.mu.Lock()
	now := s.now
	s.mu.Unlock()
	return now.Invoke(ctx, payload)
}

// hears reports whether the bus admits the events of an account, as the policy of MemberAccountIds has it.
func (a *account) hears(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return id != memberAccount || a.parameters["MemberAccountIds"] == memberAccount
}

// ServeHTTP is sam deploy: it deploys the template with the parameters that follow.
func (a *account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := a.deploy(r.Context(), r.Form["arg"]); err != nil {
		a.t.Logf("sam deploy: %v", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (a *account) deploy(ctx context.Context, args []string) error {
	tags := map[string]string{}
	parameters := map[string]string{}
	section := ""
	for n, arg := range args {
		key, value, isPair := strings.Cut(arg, "=")
		switch {
		case strings.HasPrefix(arg, "--"):
			section = arg
			if arg == "--stack-name" && args[n+1] != name {
				return fmt.Errorf("the stack's name is %s, want %s", args[n+1], name)
			}
		case isPair && section == "--tags":
			tags[key] = value
		case isPair && section == "--parameter-overrides":
			inner := strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
			if `"`+inner+`"` != value || strings.ContainsAny(inner, `"\`) {
				return fmt.Errorf("the SAM CLI would not read %s as one value", arg)
			}
			parameters[key] = inner
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parameters == nil {
		a.parameters = map[string]string{}
	}
	for key, value := range parameters { // those that are not named keep their values
		a.parameters[key] = value
	}
	if err := a.world.DeployStack(ctx, a.parameters, tags); err != nil {
		return err
	}
	return a.run(ctx)
}

// run starts the functions with the variables that they have now.
func (a *account) run(ctx context.Context) error {
	isNew := len(a.functions) == 0
	for id, f := range a.world.Stack.Functions {
		env, err := a.world.FunctionEnv(ctx, id)
		if err != nil {
			return err
		}
		now := sandbox.NewFunction(sandbox.Options{
			Name: f.Name, ARN: f.ARN, Binary: filepath.Join(f.CodeDir, "bootstrap"), Env: env, MemoryMB: f.MemoryMB,
			Timeout: time.Duration(f.TimeoutSeconds) * time.Second, Log: filepath.Join(a.world.RunDir, id+".log"),
		}, 4)
		if isNew {
			a.functions[id] = &slot{name: f.Name}
		}
		a.functions[id].mu.Lock()
		a.functions[id].now = now
		a.functions[id].mu.Unlock()
		labtest.CloseLater(a.t, now)
	}
	if !isNew {
		return nil
	}
	client := sqs.NewFromConfig(a.world.AWS)
	for _, m := range a.world.Stack.Mappings {
		labtest.CloseLater(a.t, queue.Start(queue.Options{
			Client: client, QueueURL: m.QueueURL, QueueARN: m.QueueARN, Function: a.functions[m.FunctionLogicalID], BatchSize: m.BatchSize,
			Window: m.Window, ReportBatchItemFailures: m.ReportBatchItemFailures, MaximumConcurrency: m.MaximumConcurrency, Logf: a.t.Logf,
		}))
	}
	return nil
}

// invoker is Lambda's API for functions that are deployed later.
func (a *account) invoker() http.Handler {
	api := sync.OnceValue(func() http.Handler {
		started, err := lambdaapi.Start(a.functions["ReconcileFunction"])
		if err != nil {
			a.t.Error(err)
			return http.NotFoundHandler()
		}
		labtest.CloseLater(a.t, started)
		to, _ := url.Parse(started.URL) // the server's own
		return httputil.NewSingleHostReverseProxy(to)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { api().ServeHTTP(w, r) })
}

// newWorld starts a lab without a stack.
func newWorld(t *testing.T) *lab.World {
	t.Helper()
	w, err := lab.Start(t.Context(), lab.Options{
		RepoRoot: root, StackName: name, DeferStack: true, Progress: t.Logf,
		// AWS's SDK takes no dual-stack endpoints beside the lab's own.
		FunctionEnv: map[string]string{"AWS_USE_DUALSTACK_ENDPOINT": "false"},
	})
	if err != nil {
		t.Fatal(err)
	}
	labtest.CloseLater(t, w)
	return w
}

// The tryout meets every expectation that moto can show, and removes what it made.
func TestTryout_TriesAllThatTheLabHas(t *testing.T) {
	w := newWorld(t)
	r := newRun(t, w)
	status := r.finish(t, r.start(t))
	output, report := r.output(t), r.reportText(t)
	if status != 1 {
		t.Fatalf("want the exit status 1, because moto lacks something, got %d:\n%s", status, output)
	}

	// Each line that is not ok, with its reason here.
	want := []string{
		"An instance of a warm pool starts, is stopped, starts again and logs in",           // moto's CloudFormation makes no pool
		"An instance whose root volume is replaced logs in again, though its nonce is gone", // moto has no instance refresh
	}
	var missed []string
	for line := range strings.Lines(report) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| NOT OK") {
			missed = append(missed, cells[1])
		}
	}
	if !slices.Equal(missed, want) {
		t.Errorf("want only these lines missed, because moto cannot show them: %q\nmissed: %q\n%s", want, missed, output)
	}
	if strings.Contains(output+report, w.VaultToken) {
		t.Error("output or report contain Vault's root token")
	}
	wantNothingLeft(t, w)
}

// A person who gives up, and a machine that dies, leave nothing that costs money.
func TestTryout_RemovesWhatItMadeAfterAnEnd(t *testing.T) {
	for name, end := range map[string]os.Signal{"interrupted": os.Interrupt, "killed": os.Kill} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := newRun(t, w)
			cmd := r.start(t)
			for deadline := time.Now().Add(patience); !strings.Contains(r.output(t), "ok        4 × IPv4"); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("want instances within %v, got\n%s", patience, r.output(t))
				}
			}
			if err := cmd.Process.Signal(end); err != nil {
				t.Fatal(err)
			}
			status := r.finish(t, cmd)
			if end == os.Kill {
				r.args = slices.DeleteFunc(r.args, func(arg string) bool { return arg == "--member-profile" || arg == "other" })
				if status := r.finish(t, r.start(t, "--remove")); status == 0 || !strings.Contains(r.output(t), memberAccount) {
					t.Errorf("want a removal that leaves a place out to be refused, got %d\n%s", status, r.output(t))
				}
				status = r.finish(t, r.start(t, "--remove", "--member-profile", "other"))
				if status != 0 {
					t.Errorf("want the removal to end with 0, got %d\n%s", status, r.output(t))
				}
			} else if report := r.reportText(t); status == 0 || !strings.Contains(report, "interrupted") {
				t.Errorf("want a report that says that the run was interrupted, and another status than 0, got %d and\n%s", status, report)
			}
			wantNothingLeft(t, w)
		})
	}
}

// run is the command in a world, with every place.
type run struct {
	world       *lab.World
	args, env   []string
	log, report string
}

func newRun(t *testing.T, w *lab.World) *run {
	t.Helper()
	a := &account{t: t, world: w, functions: map[string]*slot{}}
	second, err := w.Fleet.Config(t.Context(), w.AccountID, secondRegion)
	if err != nil {
		t.Fatal(err)
	}
	other, err := w.Fleet.Config(t.Context(), memberAccount, w.Region)
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{t: t, world: w, places: map[string]aws.Config{
		w.AccountID + "/" + w.Region: w.AWS, w.AccountID + "/" + secondRegion: second, memberAccount + "/" + w.Region: other,
	}, hears: a.hears, running: map[string]*machine{}, ended: map[string]bool{}}
	c.start()
	go trustDocuments(t.Context(), w)

	deployer, lambda := httptest.NewServer(a), httptest.NewServer(a.invoker())
	t.Cleanup(deployer.Close)
	t.Cleanup(lambda.Close)
	path := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\n%s=%s exec %s \"$@\"\n", samAt, deployer.URL, self)
	if err := os.WriteFile(filepath.Join(path, "sam"), []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	r := &run{world: w, log: filepath.Join(w.RunDir, "tryout.log"), report: filepath.Join(t.TempDir(), "report.md")}
	r.args = []string{
		"tryout", "--name", name, "--package", root, "--second-region", secondRegion, "--member-profile", "other", "--report", r.report, "--patience", patience.String(),
		"--yes", w.AccountID, "--setup-arg=--aws-endpoint=" + w.MotoURL, "--setup-arg=--aws-keys",
	}
	r.env = []string{
		"PATH=" + path + ":/usr/bin:/bin", "AWS_ENDPOINT_URL_CLOUDFORMATION=" + startFormation(t, w), "AWS_ENDPOINT_URL_LAMBDA=" + lambda.URL,
		"AWS_ENDPOINT_URL_DYNAMODB=" + aws.ToString(w.Dynamo.Options().BaseEndpoint), "AWS_CONFIG_FILE=" + configFile(t, other),
	}
	return r
}

// start starts the command.
func (r *run) start(t *testing.T, more ...string) *exec.Cmd {
	t.Helper()
	cmd, err := r.world.Command(t.Context(), append(slices.Clone(r.args), more...)...)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(r.log)
	if err != nil {
		t.Fatal(err)
	}
	labtest.CloseLater(t, log)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(cmd.Env, r.env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// finish waits for the command and returns its exit status.
func (r *run) finish(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	if exit := (*exec.ExitError)(nil); cmd.ProcessState == nil {
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return cmd.ProcessState.ExitCode()
}

func (r *run) output(t *testing.T) string     { return read(t, r.log) }
func (r *run) reportText(t *testing.T) string { return read(t, r.report) }

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// configFile writes an AWS profile with the keys of another account.
func configFile(t *testing.T, of aws.Config) string {
	t.Helper()
	keys, err := of.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf("[profile other]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n", keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// trustDocuments has Vault trust the lab's identity documents as soon as it has an AWS auth mount.
func trustDocuments(ctx context.Context, w *lab.World) {
	for ctx.Err() == nil && w.Fleet.RegisterCertificate(ctx, w.Vault, w.AuthMount) != nil {
		time.Sleep(200 * time.Millisecond)
	}
}

// homeOutputs returns the outputs of the home place's stack.
func homeOutputs(ctx context.Context, w *lab.World) (map[string]string, error) {
	answer, err := cloudformation.NewFromConfig(w.AWS).DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: aws.String(name + "-place")})
	if err != nil {
		return nil, err
	}
	outputs := map[string]string{}
	for _, o := range answer.Stacks[0].Outputs {
		outputs[aws.ToString(o.OutputKey)] = aws.ToString(o.OutputValue)
	}
	return outputs, nil
}

// wantNothingLeft fails if a stack, an instance or a table is left.
func wantNothingLeft(t *testing.T, w *lab.World) {
	t.Helper()
	second, _ := w.Fleet.Config(t.Context(), w.AccountID, secondRegion)
	other, _ := w.Fleet.Config(t.Context(), memberAccount, w.Region)
	for _, p := range []aws.Config{w.AWS, second, other} {
		stacks, err := cloudformation.NewFromConfig(p).DescribeStacks(t.Context(), &cloudformation.DescribeStacksInput{})
		if err != nil || len(stacks.Stacks) > 0 {
			left, _ := json.Marshal(stacks)
			t.Errorf("want no stack left in %s, seen %s, %v", p.Region, left, err)
		}
		instances, err := ec2.NewFromConfig(p).DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range instances.Reservations {
			for _, i := range r.Instances {
				if i.State.Name != "terminated" {
					t.Errorf("instance %s is left, %s", aws.ToString(i.InstanceId), i.State.Name)
				}
			}
		}
	}
	tables, err := w.Dynamo.ListTables(t.Context(), &dynamodb.ListTablesInput{})
	if err != nil || len(tables.TableNames) > 0 {
		t.Errorf("want no table left, seen %v, %v", tables.TableNames, err)
	}
}
