package storm

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// repaired is how many instances lose a PKI role before the repair.
const repaired = 5

// peerSizes are the fleets that the tools are compared on.
func peerSizes() []int { return []int{100, 500} }

// tool keeps the Vault objects of a fleet.
type tool interface {
	name() string
	create(ctx context.Context) error
	check(ctx context.Context) error // finds nothing to do
	repair(ctx context.Context) error
	destroy(ctx context.Context) error
}

// Peers measures what people use instead, for the same objects in the same Vault: a shell loop of curl, and Terraform with
// the Vault provider where it can be had.
func Peers(ctx context.Context, o Options, out io.Writer) error {
	return with(ctx, o, func(r *Rig, all recipes) error {
		for _, n := range peerSizes() {
			rows, err := r.peers(ctx, all, n)
			if err != nil {
				return err
			}
			report.Print(out, fmt.Sprintf("%d instances, beside other tools", n), rows)
		}
		return nil
	})
}

// lifetime is how long each part of a tool's work took: create, check, repair, destroy.
type lifetime [4]time.Duration

func (r *Rig) peers(ctx context.Context, all recipes, n int) ([]report.Row, error) {
	w, err := r.way(ctx, wayOptions{name: fmt.Sprint("peers", n)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.close() }() // it only measured
	r.cloud.forget()
	ours := &ourselves{way: w, fleet: r.launch(n)}
	base, err := w.lifetimeOf(ctx, ours)
	if err != nil {
		return nil, err
	}
	tools := []tool{&curl{peer: r.peer(all, r.launch(n), "curl")}}
	r.cloud.forget()
	terraform, reason := r.terraform(ctx, all, n)
	if terraform != nil {
		tools = append(tools, terraform)
	}
	var rows []report.Row
	what := []string{"create", "drift check", fmt.Sprintf("repair of %d", repaired), "destroy"}
	for _, t := range tools {
		took, err := w.lifetimeOf(ctx, t)
		if err != nil {
			return nil, err
		}
		for i, d := range took {
			rows = append(rows, report.Row{
				What: t.name() + ": " + what[i], Bare: report.Seconds(d), Ours: report.Seconds(base[i]), Ratio: report.Times(base[i], d),
			})
		}
	}
	if reason != nil {
		rows = append(rows, report.Row{What: "Terraform with the Vault provider: left out, " + strings.Join(strings.Fields(reason.Error()), " ")})
	}
	return rows, nil
}

func (w *way) lifetimeOf(ctx context.Context, t tool) (lifetime, error) {
	var took lifetime
	for i, do := range []func(context.Context) error{t.create, t.check, t.repair, t.destroy} {
		start := time.Now()
		if err := do(ctx); err != nil {
			return took, fmt.Errorf("%s: %w", t.name(), err)
		}
		took[i] = time.Since(start)
		w.rig.opts.Progress("%s: part %d took %s", t.name(), i+1, took[i].Round(time.Millisecond))
	}
	return took, nil
}

// ourselves does the same with the functions: a storm, a comparison, a correction and the storm of the end.
type ourselves struct {
	*way
	fleet []fleet.Instance
}

func (o *ourselves) name() string { return "the functions" }

func (o *ourselves) create(ctx context.Context) error {
	_, err := o.drain(ctx, provision, "running", o.fleet)
	return err
}

func (o *ourselves) check(ctx context.Context) error { return o.compare(ctx, "detect", 0, 0) }

func (o *ourselves) repair(ctx context.Context) error {
	if err := o.rig.breakSome(ctx, o.fleet); err != nil {
		return err
	}
	return o.compare(ctx, "correct", repaired, repaired)
}

func (o *ourselves) destroy(ctx context.Context) error {
	o.rig.cloud.terminate(o.fleet...)
	_, err := o.drain(ctx, deprovision, "terminated", o.fleet)
	return err
}

func (o *ourselves) compare(ctx context.Context, mode string, missing, corrected int) error {
	result, err := invoke(ctx, o.Functions[reconcile], []byte(`{"mode":"`+mode+`"}`))
	if err != nil {
		return err
	}
	var answer struct {
		Summary struct{ Missing, Changed, Orphaned, Conflicting, Corrected, Failed int }
		Blocked bool
	}
	if err := json.Unmarshal(result.Payload, &answer); err != nil {
		return fmt.Errorf("reading the answer %.200s: %w", result.Payload, err)
	}
	s := answer.Summary
	if s.Missing != missing || s.Corrected != corrected || s.Changed+s.Orphaned+s.Conflicting+s.Failed > 0 || answer.Blocked {
		return fmt.Errorf("a comparison in mode %s found %+v, and should have found %d missing and corrected %d", mode, s, missing, corrected)
	}
	return nil
}

// breakSome deletes a PKI role of some instances behind everybody's back.
func (r *Rig) breakSome(ctx context.Context, instances []fleet.Instance) error {
	for _, i := range instances[:repaired] {
		path := "alice_cluster/pki/k8s/roles/" + i.ID + "-kubelet"
		if _, err := r.Vault.Logical().DeleteWithContext(ctx, path); err != nil {
			return fmt.Errorf("deleting %s: %w", path, err)
		}
	}
	return nil
}

// peer is what every tool is given: the folder, and the objects with the fields that the functions write.
type peer struct {
	rig     *Rig
	dir     string
	fleet   []fleet.Instance
	objects []object
}

type object struct{ path, body string }

func (r *Rig) peer(all recipes, instances []fleet.Instance, name string) peer {
	p := peer{rig: r, dir: filepath.Join(r.RunDir, fmt.Sprint(name, len(instances))), fleet: instances}
	writes := all.grant.only(func(s step) bool { return toVault(s) && isWrite(s) })
	for _, i := range instances {
		replace := all.grant.replacer(i)
		for _, stage := range writes.stages {
			for _, l := range stage {
				p.objects = append(p.objects, object{path: strings.TrimPrefix(replace.Replace(l[0].path), "/v1/"), body: replace.Replace(l[0].body)})
			}
		}
	}
	return p
}

// run runs a program in the tool's folder with the lab's Vault in its environment.
func (p peer) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "VAULT_ADDR="+p.rig.VaultAddr, "VAULT_TOKEN="+p.rig.VaultToken, "VAULT_CACERT="+filepath.Join(p.rig.RunDir, "vault-ca.pem"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		text := bytes.TrimSpace(out)
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, text[max(0, len(text)-600):])
	}
	return nil
}

// curlScript is the loop: create, check, repair or destroy, one object after the other.
//
//go:embed peers_curl.sh
var curlScript string

// curl is a shell loop of curl.
type curl struct{ peer }

func (c *curl) name() string { return "shell loop of curl" }

func (c *curl) create(ctx context.Context) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	var list bytes.Buffer
	for n, o := range c.objects {
		if err := os.WriteFile(filepath.Join(c.dir, fmt.Sprint(n)), []byte(o.body), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&list, "%d %s\n", n, o.path)
	}
	err := errors.Join(os.WriteFile(filepath.Join(c.dir, "list"), list.Bytes(), 0o600), os.WriteFile(filepath.Join(c.dir, "loop.sh"), []byte(curlScript), 0o600))
	if err != nil {
		return err
	}
	return c.run(ctx, "bash", "loop.sh", "create")
}

func (c *curl) check(ctx context.Context) error { return c.run(ctx, "bash", "loop.sh", "check") }

func (c *curl) repair(ctx context.Context) error {
	if err := c.rig.breakSome(ctx, c.fleet); err != nil {
		return err
	}
	return c.run(ctx, "bash", "loop.sh", "repair")
}

func (c *curl) destroy(ctx context.Context) error { return c.run(ctx, "bash", "loop.sh", "destroy") }
