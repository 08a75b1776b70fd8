package demo

import (
	"context"
	"errors"
	"os/exec"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/lambdaapi"
)

// explain starts a worker whose role has a typing error, and asks why it has no certificate.
func (d *demo) explain(ctx context.Context) error {
	d.chapter("An instance has no certificate, and one command says why")
	launched, err := d.world.Fleet.Launch(ctx, fleet.Spec{Role: "alice-workers"})
	if err != nil {
		return err
	}
	i := launched[0]
	if err := d.started(ctx, i); err != nil {
		return err
	}
	d.say("vault-ec2 explain %s", i.ID)
	seen, err := d.ask(ctx, "explain", i.ID)
	if err != nil {
		return err
	}
	verdict, rest, _ := strings.Cut(seen, "\n\n")
	d.show(verdict)
	d.expect(strings.HasPrefix(verdict, i.ID+": unmatched") && strings.Contains(verdict, `role/alice-workers", wanted is "arn:aws*:iam::*:role/alice-worker"`),
		"it names the closest profile, and the condition that is not met", "")
	d.expect(strings.Contains(verdict, "\nnext: "), "and the next step", "")
	d.expect(strings.Contains(rest, "no record") && strings.Contains(rest, "Vault knows of none"), "neither the ledger nor Vault has anything of it", "")
	seen, err = d.ask(ctx, "explain", d.other().ID)
	if err != nil {
		return err
	}
	d.say("The same about a worker in order:")
	verdict, rest, _ = strings.Cut(seen, "\n\n")
	d.show(verdict)
	d.expect(strings.HasPrefix(verdict, d.other().ID+": granted") && strings.Contains(verdict, "its last login was at") && strings.Contains(rest, "no drift"),
		"it has its grant, has logged in, and nothing differs", "")
	return nil
}

// who asks for the terminated worker's address, as after an incident.
func (d *demo) who(ctx context.Context) error {
	d.chapter("An address in an old log: who held it, and what did that instance do in Vault?")
	i := d.worker()
	d.say("vault-ec2 who %s", i.PrivateIP)
	seen, err := d.ask(ctx, "who", i.PrivateIP)
	if err != nil {
		return err
	}
	d.show(seen)
	d.expect(strings.Contains(seen, "before  "+i.ID) && strings.Contains(seen, "removed by "), "it was the terminated worker's, until its end", "")
	d.expect(strings.Contains(seen, "jq -c 'select(") && strings.Contains(seen, i.ID), "the filter for Vault's audit log names that instance", "")
	return nil
}

// ask returns what vault-ec2 prints. Its exit status may be 1, which says that something is left to do.
func (d *demo) ask(ctx context.Context, args ...string) (string, error) {
	server, err := lambdaapi.Start(d.world.Functions[reconcileFunction])
	if err != nil {
		return "", err
	}
	defer func() { _ = server.Close() }()
	cmd, err := d.world.Command(ctx, append(args, "--stack", d.world.Stack.Name)...)
	if err != nil {
		return "", err
	}
	cmd.Env = append(cmd.Env, "AWS_ENDPOINT_URL_LAMBDA="+server.URL)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		err = nil
	}
	return string(out), err
}
