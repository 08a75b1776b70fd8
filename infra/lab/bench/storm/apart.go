package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

// apart gives Vault one of the machine's cores and everything else the others, as Vault has its own machine where functions
// are deployed; undo gives all to all again.
func (r *Rig) apart(ctx context.Context) (undo func() error, err error) {
	pin := func(cores string, pids ...int) error {
		for _, pid := range pids {
			if out, err := exec.CommandContext(ctx, "taskset", "-a", "-c", "-p", cores, strconv.Itoa(pid)).CombinedOutput(); err != nil {
				return fmt.Errorf("keeping process %d to the cores %s: %w: %s", pid, cores, err, out)
			}
		}
		return nil
	}
	all := fmt.Sprintf("0-%d", runtime.NumCPU()-1)
	vault, self := r.Servers.Vault.PID(), os.Getpid()
	undo = func() error { return pin(all, vault, self) }
	return undo, errors.Join(pin("0", vault), pin(fmt.Sprintf("1-%d", runtime.NumCPU()-1), self))
}

// stormsApart measures storms as far as Vault alone bounds them: Vault has a core of its own, and the ledger, which is a
// service of AWS's and takes no core of anybody's, is a table in memory. What starts from now on is where the bench is.
func (r *Rig) stormsApart(ctx context.Context, all recipes, o load, heading string, out io.Writer) (err error) {
	heading += ", Vault on a core of its own, the ledger in memory"
	if _, err := exec.LookPath("taskset"); err != nil || runtime.NumCPU() < 2 {
		report.Print(out, heading, []report.Row{{What: "left out: this needs two cores, and taskset"}})
		return nil
	}
	undo, err := r.apart(ctx)
	defer func() { err = errors.Join(err, undo()) }()
	if err != nil {
		return err
	}
	o.Apart, o.Short = true, true
	return r.storms(ctx, all, o, heading, out)
}
