package matrix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

// testLimit bounds the integration tests on one server.
const testLimit = 30 * time.Minute

// Run runs the integration tests on each of the programs (a version, or a path to vault or bao) and prints the table. A
// program that cannot be had or that fails holds up no other. The error names each test that failed.
func Run(ctx context.Context, w *parts.Workspace, programs []string, out io.Writer) error {
	var results []result
	var errs []error
	for _, program := range programs {
		r, err := tryOn(ctx, w, program)
		if err != nil {
			errs = append(errs, fmt.Errorf("trying %s: %w", program, err))
		}
		if r.server != "" {
			results = append(results, r)
		}
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	fmt.Fprint(out, table(results))
	for _, r := range results {
		if len(r.failed) > 0 {
			errs = append(errs, fmt.Errorf("%s fails %s; the output is in %s", r.server, strings.Join(r.failed, ", "), r.log))
		}
	}
	return errors.Join(errs...)
}

// tryOn finds or builds one program and runs the tests on it. The result of tests that failed is not an error.
func tryOn(ctx context.Context, w *parts.Workspace, program string) (result, error) {
	binary, err := vaultserver.FindChosen(ctx, w, program)
	if err != nil {
		return result{}, err
	}
	r := result{server: binary.String(), log: w.Log("tests-" + strings.ReplaceAll(binary.String(), " ", "-"))}
	ctx, cancel := context.WithTimeout(ctx, testLimit)
	defer cancel()
	err = w.Slowly(ctx, "the integration tests on "+r.server, func(ctx context.Context) error {
		var output bytes.Buffer
		test := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout", testLimit.String(), "./integration")
		test.Dir = filepath.Join(w.RepoRoot, "infra", "lab")
		test.Env = append(os.Environ(), vaultserver.Choose(program))
		test.Stdout, test.Stderr = &output, &output
		failure := test.Run()
		if err := os.WriteFile(r.log, output.Bytes(), 0o600); err != nil {
			return err
		}
		if err := r.read(&output); err != nil {
			return err
		}
		if failure != nil && len(r.failed) == 0 {
			return fmt.Errorf("no test failed, but the run did: %w; its output is in %s", failure, r.log)
		}
		return nil
	})
	return r, err
}
