package main

import (
	"os/exec"
	"strings"
	"testing"
)

// A function's size and cold start grow with what it imports, so the command's libraries must not reach one by a common package.
func TestFunctions_ImportNothingOfTheCommand(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./functions/...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "/internal/wiring\n") {
		t.Fatalf("listing what the functions import: %v", err)
	}
	for _, path := range strings.Fields(string(out)) {
		for _, of := range []string{"/infra/vault-ec2", "github.com/spf13/", "/service/cloudformation", "/service/lambda", "/service/s3"} {
			if strings.Contains(path, of) {
				t.Errorf("a function imports %s, which is for the command alone", path)
			}
		}
	}
}
