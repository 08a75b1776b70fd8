package storm

import (
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

// measured is one storm beside its limits.
type measured struct {
	load
	recipes
	lives
	limits
}

// startShare returns the throughput of the starts as a share of the writes alone.
func (m measured) startShare() float64 { return share(m.lives.grant.took, m.writes.grant.took) }

// share returns our throughput as a share of the bare client's.
func share(ours, bare time.Duration) float64 { return bare.Seconds() / ours.Seconds() }

// result returns the storm's figures.
func (m measured) result() report.Storm {
	wave := func(r recipeOfFunction, ours storm, calls, writes pass) report.Wave {
		pass := func(p pass) report.Pass {
			return report.Pass{Seconds: p.took.Seconds(), Used: p.used.each(m.N)}
		}
		return report.Wave{
			CallsToVault: r.inBatch.perInstance(toVault), Ours: pass(ours.pass), SameCalls: pass(calls), Writes: pass(writes),
			Done: report.Distribution(ours.each),
		}
	}
	return report.Storm{
		Setup: m.Setup, Instances: m.N,
		Start: wave(m.recipes.grant, m.lives.grant, m.calls.grant, m.writes.grant),
		End:   wave(m.recipes.removal, m.lives.removal, m.calls.removal, m.writes.removal),
	}
}

// rows returns the storm's table.
func (m measured) rows() []report.Row {
	rate := func(what string, bare, ours pass) report.Row {
		return report.Row{What: what, Bare: report.Rate(m.N, bare.took), Ours: report.Rate(m.N, ours.took), Ratio: fmt.Sprintf("%.2f ×", share(ours.took, bare.took))}
	}
	row := func(what, ours, aim string) report.Row { return report.Row{What: what, Ours: ours, Target: aim} }
	part := func(what, done string, r recipeOfFunction, ours storm, calls, writes, withLedger pass) []report.Row {
		rows := []report.Row{
			rate(fmt.Sprintf("%d %s: instances a second, beside the same %.2f calls to Vault for each", m.N, what, r.inBatch.perInstance(toVault)), calls, ours.pass),
			rate("beside the writes to Vault alone", writes, ours.pass),
		}
		if withLedger.took > 0 {
			rows = append(rows, rate("beside the calls to Vault and the ledger's", withLedger, ours.pass))
		}
		before, used := writes.used.each(m.N).Vault, ours.used.each(m.N).Vault
		return append(rows,
			report.Row{
				What: "Vault's processor time for each, beside the writes alone", Bare: fmt.Sprintf("%.1f ms", before), Ours: fmt.Sprintf("%.1f ms", used),
				Ratio: fmt.Sprintf("%.2f ×", used/before),
			},
			row("processor time for each", ours.used.of(m.N, ours.took), ""),
			row(done+", p50 / p99", quantiles(ours.each), ""),
			row("calls of DescribeInstances", fmt.Sprintf("%d for %d batches", ours.describes, ours.batches), fmt.Sprintf("≤ %d", m.N/50)),
			row("peak memory of a sandbox", fmt.Sprintf("%.0f MB", float64(ours.peak)/1e6), ""))
	}
	rows := part("starts", "time to ready", m.recipes.grant, m.lives.grant, m.calls.grant, m.writes.grant, m.withLedger.grant)
	rows = append(rows,
		row("ledger writes for each", fmt.Sprint(writesToGrant), fmt.Sprint(writesToGrant)),
		row("calls that Vault refused or failed (429, 5xx)", "0", "0"))
	if m.repeat.took > 0 {
		rows = append(rows, row(fmt.Sprintf("%d repetitions: events a second, with no write anywhere", m.N), report.Rate(m.N, m.repeat.took), ""))
	}
	rows = append(rows, part("ends", "all removed", m.recipes.removal, m.lives.removal, m.calls.removal, m.writes.removal, m.withLedger.removal)...)
	return append(rows, row(fmt.Sprintf("event → token refused, p50 / p99 of %d tokens", len(m.cutOff)), quantiles(m.cutOff), ""))
}

func quantiles(each []time.Duration) string {
	return fmt.Sprintf("%s / %s", report.Seconds(report.Quantile(each, 0.5)), report.Seconds(report.Quantile(each, 0.99)))
}
