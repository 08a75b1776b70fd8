package storm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
)

// sizeLimit is the aim for the size of a function's binary, in bytes.
const sizeLimit = 15_000_000

// Cold measures the start of each function, from the start of its process to its first poll for an event, beside a function
// that makes the same AWS clients and nothing else. The functions start in turn.
func (r *Rig) Cold(ctx context.Context, rounds int) (rows []report.Row, err error) {
	w, err := r.way(ctx, wayOptions{name: "cold", one: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	binary := filepath.Join(r.RunDir, "emptyhandler")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "lambda.norpc,nethttpomithttp2", "-ldflags", "-s -w", "-o", binary, "./bench/storm/emptyhandler")
	build.Dir, build.Env = filepath.Join(r.opts.RepoRoot, "infra", "lab"), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the empty handler: %w: %s", err, out)
	}
	env, err := r.FunctionEnv(ctx, provision)
	if err != nil {
		return nil, err
	}
	empty := sandbox.NewFunction(sandbox.Options{Name: "empty", Binary: binary, Env: env, Log: filepath.Join(r.RunDir, "empty.log")}, 1)
	defer func() { err = errors.Join(err, empty.Close()) }()
	all := []*sandbox.Function{empty, w.Functions[provision], w.Functions[deprovision], w.Functions[reconcile]}
	times := make([][]time.Duration, len(all))
	for range rounds {
		for n, f := range all {
			if err := f.Kill(); err != nil {
				return nil, err
			}
			// The answer is not needed: the function has polled before it.
			result, err := f.Invoke(ctx, []byte(idle))
			if err == nil && result.Init == 0 {
				err = errors.New("it was not started again")
			}
			if err != nil {
				return nil, fmt.Errorf("starting %s: %w", f.Name(), err)
			}
			times[n] = append(times[n], result.Init)
		}
	}
	least := report.Median(times[0])
	for n, id := range []string{provision, deprovision, reconcile} {
		start := report.Median(times[n+1])
		rows = append(rows, report.Row{
			What: id + ": start → first poll, with its profiles", Bare: report.Millis(least), Ours: report.Millis(start),
			Ratio: report.Times(start, least), Target: "≤ 2 ×",
		})
		size, err := r.deployedSize(ctx, id)
		if err != nil {
			return nil, err
		}
		rows = append(rows, report.Row{
			What: id + ": size of the binary for arm64, as deployed", Ours: fmt.Sprintf("%.1f MB", float64(size)/1e6), Target: fmt.Sprintf("≤ %d MB", sizeLimit/1_000_000),
		})
	}
	return rows, nil
}

// deployedSize builds a function as sam build does, for the template's architecture, and returns its size in bytes.
func (r *Rig) deployedSize(ctx context.Context, id string) (int64, error) {
	dir, err := os.MkdirTemp(r.RunDir, "deployed")
	if err != nil {
		return 0, err
	}
	build := exec.CommandContext(ctx, "make", "build-"+id, "ARTIFACTS_DIR="+dir)
	build.Dir = r.opts.RepoRoot
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("building %s as it is deployed: %w: %s", id, err, out)
	}
	info, err := os.Stat(filepath.Join(dir, "bootstrap"))
	if err != nil {
		return 0, fmt.Errorf("reading the size of the binary of %s: %w", id, err)
	}
	return info.Size(), nil
}
