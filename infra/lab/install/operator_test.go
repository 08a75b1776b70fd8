package install

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/lambdaapi"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
)

// reconcile is the logical ID of the function that operators invoke.
const reconcile = "ReconcileFunction"

// operator runs vault-ec2 in a world, with the stack's name alone. No program is on its PATH.
type operator struct {
	world   *lab.World
	command string // the program's file; empty for that of the world's build
	env     []string
}

// operate returns an operator whose invocations reach a function.
func operate(t *testing.T, w *lab.World, function *sandbox.Function) operator {
	t.Helper()
	api, err := lambdaapi.Start(function)
	if err != nil {
		t.Fatal(err)
	}
	labtest.CloseLater(t, api)
	return operator{world: w, env: []string{
		"AWS_ENDPOINT_URL_LAMBDA=" + api.URL, "AWS_ENDPOINT_URL_DYNAMODB=" + aws.ToString(w.Dynamo.Options().BaseEndpoint), "PATH=" + t.TempDir(),
	}}
}

// run runs the command for the stack. It fails unless the command ends with a status and prints a text.
func (o operator) run(t *testing.T, status int, says string, args ...string) {
	t.Helper()
	if got, out := o.try(t, args...); got != status || !strings.Contains(out, says) {
		t.Fatalf("vault-ec2 %q: want the exit status %d and %q, got %d and\n%s", args, status, says, got, out)
	}
}

// correct repairs the fleet, and again where an instance that starts or ends in this moment was left to the next run.
func (o operator) correct(t *testing.T) {
	t.Helper()
	for tries := 1; ; tries++ {
		status, out := o.try(t, "reconcile", "--mode", "correct")
		if status == 0 {
			return
		}
		isBesideEvents := strings.Contains(out, "left to the next run") || strings.Contains(out, "another run")
		if !isBesideEvents || tries == 5 {
			t.Fatalf("vault-ec2 reconcile --mode correct: want the exit status 0, got %d at try %d and\n%s", status, tries, out)
		}
		t.Logf("%s", out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
	}
}

// try runs the command for the stack, and returns its exit status and output.
func (o operator) try(t *testing.T, args ...string) (status int, output string) {
	t.Helper()
	cmd, err := o.world.Command(t.Context(), append(args, "--stack", o.world.Stack.Name)...)
	if err != nil {
		t.Fatal(err)
	}
	if o.command != "" {
		cmd.Path = o.command
	}
	cmd.Env = append(cmd.Env, o.env...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
