package storm

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/cpu"
)

// usage is processor time by part.
type usage struct{ vault, dynamo, functions, bench time.Duration }

func (w *way) usage() usage {
	u := usage{vault: cpu.Of(w.rig.Servers.Vault.PID()), dynamo: cpu.Of(w.rig.Servers.DynamoDB.PID()), bench: cpu.Self()}
	for _, f := range w.Functions {
		for _, pid := range f.PIDs() {
			u.functions += cpu.Of(pid)
		}
	}
	return u
}

func (u usage) since(before usage) usage {
	return usage{
		vault: u.vault - before.vault, dynamo: u.dynamo - before.dynamo, functions: u.functions - before.functions, bench: u.bench - before.bench,
	}
}

// of formats the time of each part for one of n instances, and the share of the machine's cores that all used.
func (u usage) of(n int, took time.Duration) string {
	each := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(n) }
	var parts []string
	for _, p := range []struct {
		who  string
		used time.Duration
	}{{"Vault", u.vault}, {"DynamoDB Local", u.dynamo}, {"functions", u.functions}, {"bench", u.bench}} {
		if each(p.used) >= 0.05 {
			parts = append(parts, fmt.Sprintf("%s %.1f", p.who, each(p.used)))
		}
	}
	all := (u.vault + u.dynamo + u.functions + u.bench).Seconds() / took.Seconds() / float64(runtime.NumCPU())
	return fmt.Sprintf("%s ms; %.0f %% of %d cores", strings.Join(parts, ", "), all*100, runtime.NumCPU())
}
