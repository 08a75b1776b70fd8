package storm

import (
	"context"
	"errors"
	"fmt"
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

func pin(ctx context.Context, cores string, pid int) error {
	_, err := taskset(ctx, "-a", "-c", "-p", cores, strconv.Itoa(pid))
	return err
}

// apart pins Vault to one core, and this process and its later children to the others: Vault has a machine of its own where
// functions are deployed. undo lets both use all cores again. It fails if there is only one core.
func (r *Rig) apart(ctx context.Context) (undo func() error, err error) {
	vault, self := r.Servers.Vault.PID(), os.Getpid()
	out, err := taskset(ctx, "-c", "-p", strconv.Itoa(self)) // pid 1's current affinity list: 0,2-5
	if err != nil {
		return nil, err
	}
	all := strings.TrimSpace(out[strings.LastIndex(out, ":")+1:])
	end := strings.IndexAny(all, ",-")
	if end < 0 {
		return nil, errors.New("there is only one core")
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
	undo = func() error { return errors.Join(pin(ctx, all, vault), pin(ctx, all, self)) }
	if err := errors.Join(pin(ctx, first, vault), pin(ctx, others, self)); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// stormsApart measures storms that only Vault bounds: Vault has a core of its own, and the ledger is a table in memory,
// because the real one is a service of AWS's that takes none of these cores. DynamoDB Local and moto are idle.
func (p printer) stormsApart(ctx context.Context, all recipes, o load) (err error) {
	o.Apart, o.LedgerInMemory = true, true
	undo, err := p.apart(ctx)
	if err != nil {
		p.table("Storms, "+o.String(), []report.Row{{What: "left out: " + err.Error()}})
		return nil
	}
	defer func() { err = errors.Join(err, undo()) }()
	return p.storms(ctx, all, o)
}
