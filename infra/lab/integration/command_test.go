package integration

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// A stack has every name, role and region that the flags of the lab's set-up have, so a run by the stack alone finds nothing to change.
func TestSetup_TakesEverythingFromTheStack(t *testing.T) {
	with := []string{"setup", "--stack", world.Stack.Name, "--aws-endpoint", world.MotoURL, "--aws-keys", "--pki", "--templates-dir", world.Profiles}
	out := ranWith(t, nil, 0, with...)
	for _, says := range []string{
		"stack   " + world.Stack.Name + " in " + world.Region, "taken   --deployment " + world.Stack.Name, "taken   --sts-region " + world.Region,
		"taken   --function-role reconcile=" + world.Stack.Outputs["ReconcileFunctionRoleArn"], "\n0 of ",
	} {
		if !strings.Contains(out, says) {
			t.Errorf("want %q in\n%s", says, out)
		}
	}
	if strings.Contains(out, "create") || strings.Contains(out, "update") {
		t.Errorf("want what the flags of the lab wrote, got\n%s", out)
	}
	ranWith(t, nil, 1, append(with, "--stack", "none")...)
}

func TestCommand_FindsTheFunctionOfTheStack(t *testing.T) {
	env := servedBy(t, world.Functions[reconcile])
	if out := ranWith(t, env, 0, "doctor", "--stack", world.Stack.Name); !strings.Contains(out, "checks, all ok") {
		t.Errorf("want the doctor's checks, got\n%s", out)
	}
	if out := ranWith(t, env, 0, "doctor", "--stack", world.Stack.Name, "-o", "json"); !strings.HasPrefix(out, `{"mode":"doctor","ok":true`) {
		t.Errorf("want the doctor's report as JSON, got\n%.200s", out)
	}
	if out := ranWith(t, env, 2, "doctor", "--stack", "none"); !strings.Contains(out, "region "+world.Region+" has no stack none") {
		t.Errorf("want the missing stack named, got\n%s", out)
	}
}

// ranWith returns the output of vault-ec2, which must end with a status.
func ranWith(t *testing.T, env []string, status int, args ...string) string {
	t.Helper()
	cmd, err := world.Command(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("vault-ec2 %q: want the exit status %d, got %d:\n%s", args, status, got, out)
	}
	return string(out)
}
