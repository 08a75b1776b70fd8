package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/plots"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

// pages are the files that show a run's results.
type pages struct{ root string }

func (p pages) folder() string  { return filepath.Join(p.root, "docs", "benchmarks") }
func (p pages) results() string { return filepath.Join(p.folder(), "results.json") }

// publish writes the results, the plots, the table of aims and all other tables.
func (p pages) publish(r report.Results, out io.Writer) error {
	if err := r.Save(p.results()); err != nil {
		return err
	}
	return p.draw(r, out)
}

// draw writes the plots and the tables of results.
func (p pages) draw(r report.Results, out io.Writer) error {
	written, err := plots.Write(p.folder(), r)
	if err != nil {
		return err
	}
	var aims, all bytes.Buffer
	report.PrintGoals(&aims, r.Goals())
	fmt.Fprintf(&aims, "\n%s\n", r.Run)
	for _, t := range r.Tables {
		t.Print(&all)
	}
	if r.Comparison != "" {
		fmt.Fprintf(&all, "\n### Comparing a fleet\n\n```text\n%s\n```\n", strings.TrimSpace(r.Comparison))
	}
	for i, path := range written {
		if short, err := filepath.Rel(p.root, path); err == nil {
			written[i] = short
		}
	}
	for page, text := range map[string][]byte{"BENCHMARKS.md": aims.Bytes(), filepath.Join("docs", "benchmark-method.md"): all.Bytes()} {
		if err := report.Replace(filepath.Join(p.root, page), text); err != nil {
			return err
		}
		written = append(written, page)
	}
	fmt.Fprintf(out, "\nupdated: %s\n", strings.Join(written, " "))
	return nil
}

// thisRun returns the machine and the versions of a run that begins now.
func thisRun(ctx context.Context, root string) (report.Run, error) {
	git := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty", "--exclude=*")
	commit, err := git.Output()
	if err != nil {
		return report.Run{}, fmt.Errorf("reading the commit that is measured: %w", err)
	}
	return report.Run{
		Date: time.Now().UTC().Format(time.DateOnly), Commit: strings.TrimSpace(string(commit)), Cores: runtime.NumCPU(),
		System: runtime.GOOS + "/" + runtime.GOARCH, Go: strings.TrimPrefix(runtime.Version(), "go"),
	}, nil
}
