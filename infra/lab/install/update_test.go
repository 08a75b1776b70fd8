package install

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/released"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
)

// worker is the built-in kind of Kubernetes workers.
var worker = kind{"alice-worker", func(i fleet.Instance) (string, map[string]any) {
	return "alice_cluster/pki/k8s/issue/" + i.ID + "-kubelet", map[string]any{
		"common_name": "system:node:" + i.PrivateDNS, "alt_names": i.PrivateDNS, "ip_sans": i.PrivateIP,
	}
}}

// git runs git in the repository and returns its output; ok is false if it fails.
func git(t *testing.T, args ...string) (out []byte, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	return bytes.TrimSpace(out), err == nil
}

// formerRevision returns the revision to update from: BEFORE, or else the last release, or else the one before the last change of the
// functions. A checkout without history has only its own.
func formerRevision(t *testing.T) string {
	t.Helper()
	if named := os.Getenv("BEFORE"); named != "" {
		return named
	}
	if tag, ok := released.Last(t.Context(), root); ok {
		return tag
	}
	if changes, ok := git(t, "log", "-1", "--format=%H~1", "--", "internal/**.go", "functions", ":!*_test.go"); ok && len(changes) > 0 {
		if commit, ok := git(t, "rev-parse", "--verify", "--quiet", string(changes)+"^{commit}"); ok {
			return string(commit)
		}
	}
	t.Log("the checkout has no history: the functions are updated from their own version")
	return "HEAD"
}

// former returns a folder with a former version's sources and its build.
func former(t *testing.T) string {
	t.Helper()
	revision := formerRevision(t)
	t.Logf("the former version is %s", revision)
	at := t.TempDir()
	archive, ok := git(t, "archive", revision)
	if !ok {
		t.Fatalf("git archive %s failed: name a revision that the checkout has with BEFORE", revision)
	}
	untar := exec.CommandContext(t.Context(), "tar", "-xf", "-", "-C", at)
	untar.Stdin = bytes.NewReader(archive)
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	build := exec.CommandContext(t.Context(), "make", "build", "BUILD_DIR="+filepath.Join(at, "build"))
	build.Dir, build.Env = at, append(os.Environ(), "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build of %s: %v\n%s", revision, err, out)
	}
	return at
}

// variables returns the names of the variables that a template sets for each function, by logical ID.
func variables(t *testing.T, template string) map[string]map[string]bool {
	t.Helper()
	expanded, err := stack.Expand(t.Context(), partstest.Python(t), template, "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]bool{}
	resources, _ := expanded["Resources"].(map[string]any)
	for id, r := range resources {
		resource, _ := r.(map[string]any)
		if resource["Type"] != "AWS::Lambda::Function" {
			continue
		}
		properties, _ := resource["Properties"].(map[string]any)
		environment, _ := properties["Environment"].(map[string]any)
		named, _ := environment["Variables"].(map[string]any)
		all[id] = map[string]bool{}
		for name := range named {
			all[id][name] = true
		}
	}
	return all
}

// version is one version of the functions, with the variables that one version of the template sets.
type version struct {
	name  string
	build string                     // folder of <function>/bootstrap
	names map[string]map[string]bool // of the variables
}

// functions are the functions of a version by logical ID.
type functions map[string]*sandbox.Function

// prepare returns the functions of a version in a world, whose template sets the variables deployed.
func prepare(t *testing.T, w *lab.World, deployed map[string]map[string]bool, v version) functions {
	t.Helper()
	all := functions{}
	for id, f := range w.Stack.Functions {
		env, err := w.FunctionEnv(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(env, func(name, _ string) bool { return deployed[id][name] && !v.names[id][name] })
		all[id] = sandbox.NewFunction(sandbox.Options{
			Name: f.Name, ARN: f.ARN, Binary: filepath.Join(v.build, filepath.Base(f.CodeDir), "bootstrap"), Env: env, MemoryMB: f.MemoryMB,
			Timeout: time.Duration(f.TimeoutSeconds) * time.Second, Log: filepath.Join(w.RunDir, id+"-"+v.name+".log"),
		}, 4)
		labtest.CloseLater(t, all[id])
	}
	return all
}

// wantWork fails unless the functions handled events.
func (f functions) wantWork(t *testing.T, name string) {
	t.Helper()
	for _, id := range []string{"ProvisionFunction", "DeprovisionFunction"} {
		if f[id].ColdStarts() == 0 || !strings.Contains(f[id].Logs(), `"action":"`) {
			t.Errorf("%s of %s handled no event: the versions did not run as the test says\n%s", id, name, f[id].Logs())
		}
	}
}

// mix takes the batches of one queue in turn with the functions of several versions, as Lambda does while it replaces a function's
// environments.
type mix struct {
	mu    sync.Mutex
	of    []*sandbox.Function
	turns int
}

// Invoke runs an event with the next function.
func (m *mix) Invoke(ctx context.Context, payload []byte) (sandbox.Result, error) {
	m.mu.Lock()
	f := m.of[m.turns%len(m.of)]
	m.turns++
	m.mu.Unlock()
	return f.Invoke(ctx, payload)
}

// mixes are those of all queues, by the function that they feed.
type mixes map[string]*mix

// use has the next batches handled by these versions.
func (all mixes) use(versions ...functions) {
	for id, m := range all {
		m.mu.Lock()
		m.of = nil
		for _, v := range versions {
			m.of = append(m.of, v[id])
		}
		m.mu.Unlock()
	}
}

// poll feeds a version from the queues of a world.
func poll(t *testing.T, w *lab.World, first functions) mixes {
	t.Helper()
	all, client := mixes{}, sqs.NewFromConfig(w.AWS)
	for _, m := range w.Stack.Mappings {
		all[m.FunctionLogicalID] = &mix{of: []*sandbox.Function{first[m.FunctionLogicalID]}}
		labtest.CloseLater(t, queue.Start(queue.Options{
			Client: client, QueueURL: m.QueueURL, QueueARN: m.QueueARN, Function: all[m.FunctionLogicalID], BatchSize: m.BatchSize,
			Window: m.Window, ReportBatchItemFailures: m.ReportBatchItemFailures, MaximumConcurrency: m.MaximumConcurrency, Logf: t.Logf,
		}))
	}
	return all
}

// An update, and the way back, cost no instance its certificate path, and leave no object and no drift. While CloudFormation updates a
// function, its code and its variables may be of different versions, and both versions take events.
func TestUpdate_ThereAndBackUnderEvents(t *testing.T) {
	at := former(t)
	before, after := variables(t, filepath.Join(at, "template.yaml")), variables(t, filepath.Join(root, "template.yaml"))
	formerBuild, build := filepath.Join(at, "build"), absolute(t, filepath.Join(root, "build"))
	w, err := lab.Start(t.Context(), lab.Options{
		RepoRoot: root, BuildDir: formerBuild, Parameters: lab.Parameters(), SetupVault: lab.SetupVault, Progress: t.Logf, DeferFunctions: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	labtest.CloseLater(t, w)

	old := prepare(t, w, after, version{"former", formerBuild, before})
	current := prepare(t, w, after, version{"new", build, after})
	oldWithNewVariables := prepare(t, w, after, version{"former-code", formerBuild, after})
	newWithOldVariables := prepare(t, w, after, version{"new-code", build, before})
	formerOperator, newOperator := operate(t, w, old[reconcile]), operate(t, w, current[reconcile])
	newOperator.command = filepath.Join(build, "vault-ec2")

	queues := poll(t, w, old)
	l := start(t, w, worker, 6)
	l.has(t, 2)
	old.wantWork(t, "the former version")

	// There: deploy, then set up, then reconcile.
	queues.use(old, oldWithNewVariables, newWithOldVariables, current)
	l.has(t, 6)
	oldWithNewVariables.wantWork(t, "the former code with the new variables")
	newWithOldVariables.wantWork(t, "the new code with the former variables")
	current.wantWork(t, "the new version")
	queues.use(current)
	newOperator.run(t, 0, "changed", "setup", "--templates-dir", w.Profiles, "--aws-endpoint", w.MotoURL, "--aws-keys")
	l.has(t, 2)
	newOperator.correct(t)
	newOperator.run(t, 0, "checks, all ok", "doctor")

	// And back, in the same order.
	queues.use(old, oldWithNewVariables, newWithOldVariables, current)
	l.has(t, 6)
	queues.use(old)
	if out, err := w.VaultSetup(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l.has(t, 2)
	formerOperator.correct(t)
	l.finish(t)
	formerOperator.run(t, 0, "", "reconcile")
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
