package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

// taskset runs util-linux's taskset on a process and all its threads.
func taskset(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "taskset", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("taskset %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func keep(ctx context.Context, cores string, pid int) error {
	_, err := taskset(ctx, "-a", "-c", "-p", cores, strconv.Itoa(pid))
	return err
}

// apart gives Vault one of the cores there are and this process the others, with what it starts from now on, as Vault has
// its own machine where functions are deployed; undo gives all to both again.
func (r *Rig) apart(ctx context.Context) (undo func() error, err error) {
	vault, self := r.Servers.Vault.PID(), os.Getpid()
	out, err := taskset(ctx, "-c", "-p", strconv.Itoa(self)) // pid 1's current affinity list: 0,2-5
	if err != nil {
		return nil, err
	}
	all := strings.TrimSpace(out[strings.LastIndex(out, ":")+1:])
	end := strings.IndexAny(all, ",-")
	if end < 0 {
		return nil, errors.New("there is but one core")
	}
	first, others := all[:end], all[end+1:]
	if all[end] == '-' {
		var low int
		if low, err = strconv.Atoi(first); err != nil {
			return nil, fmt.Errorf("reading the cores %q: %w", all, err)
		}
		if next := strconv.Itoa(low + 1); others != next && !strings.HasPrefix(others, next+",") {
			others = next + "-" + others
		}
	}
	undo = func() error { return errors.Join(keep(ctx, all, vault), keep(ctx, all, self)) }
	if err := errors.Join(keep(ctx, first, vault), keep(ctx, others, self)); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// stormsApart measures storms as far as Vault alone bounds them: Vault has a core of its own, and the ledger, which is a
// service of AWS's and takes no core of anybody's, is a table in memory. DynamoDB Local and moto idle meanwhile.
func (r *Rig) stormsApart(ctx context.Context, all recipes, o load, heading string, out io.Writer) (err error) {
	heading += ", Vault on a core of its own, the ledger in memory"
	undo, err := r.apart(ctx)
	if err != nil {
		report.Print(out, heading, []report.Row{{What: "left out: " + err.Error()}})
		return nil
	}
	defer func() { err = errors.Join(err, undo()) }()
	o.Apart, o.Short = true, true
	return r.storms(ctx, all, o, heading, out)
}
