package storm

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/cpu"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
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

func (u usage) and(other usage) usage {
	return usage{
		vault: (u.vault + other.vault) / 2, dynamo: (u.dynamo + other.dynamo) / 2, functions: (u.functions + other.functions) / 2,
		bench: (u.bench + other.bench) / 2,
	}
}

// each returns the time of each part for one of n instances.
func (u usage) each(n int) report.Used {
	of := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(n) }
	return report.Used{Vault: of(u.vault), DynamoDBLocal: of(u.dynamo), Functions: of(u.functions), Bench: of(u.bench)}
}

// of formats the time of each part for one of n instances, and the share of the machine's cores that all used.
func (u usage) of(n int, took time.Duration) string {
	each := u.each(n)
	var parts []string
	for _, p := range []struct {
		who    string
		millis float64
	}{{"Vault", each.Vault}, {"DynamoDB Local", each.DynamoDBLocal}, {"functions", each.Functions}, {"bench", each.Bench}} {
		if p.millis >= 0.05 {
			parts = append(parts, fmt.Sprintf("%s %.1f", p.who, p.millis))
		}
	}
	all := (u.vault + u.dynamo + u.functions + u.bench).Seconds() / took.Seconds() / float64(runtime.NumCPU())
	return fmt.Sprintf("%s ms; %.0f %% of %d cores", strings.Join(parts, ", "), all*100, runtime.NumCPU())
}
