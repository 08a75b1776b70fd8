package storm

import (
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

// share formats our throughput as a share of the bare client's.
func share(ours, bare time.Duration) string {
	return fmt.Sprintf("%.2f ×", bare.Seconds()/ours.Seconds())
}

func (o load) rows(all recipes, ours lives, vault, withLedger, writes grantAndRemoval) []report.Row {
	rate := func(what string, bare, ours time.Duration, aim string) report.Row {
		return report.Row{What: what, Bare: report.Rate(o.N, bare), Ours: report.Rate(o.N, ours), Ratio: share(ours, bare), Target: aim}
	}
	row := func(what, ours, aim string) report.Row { return report.Row{What: what, Ours: ours, Target: aim} }
	quantiles := func(each []time.Duration) string {
		return fmt.Sprintf("%s / %s", report.Seconds(report.Quantile(each, 0.5)), report.Seconds(report.Quantile(each, 0.99)))
	}
	peak := func(s storm) string { return fmt.Sprintf("%.0f MB", float64(s.peak)/1e6) }
	calls := func(r recipe) int { return r.count(toVault) }
	rows := []report.Row{
		rate(fmt.Sprintf("%d starts: instances a second, beside the same %d calls to Vault for each", o.N, calls(all.grant)), vault.grant, ours.grant.took, "≥ 0.8 ×"),
	}
	if !o.Short {
		rows = append(rows,
			rate("beside those and the ledger's", withLedger.grant, ours.grant.took, ""),
			rate("beside the writes to Vault alone", writes.grant, ours.grant.took, ""))
	}
	rows = append(rows,
		row("processor time for each", ours.grant.used.of(o.N, ours.grant.took), ""),
		row("time to ready, p50 / p99", quantiles(ours.grant.each), ""),
		row("calls of DescribeInstances", fmt.Sprintf("%d for %d batches", ours.grant.describes, ours.grant.batches), fmt.Sprintf("≤ %d", o.N/50)),
		row("ledger writes for each", fmt.Sprint(writesToGrant), fmt.Sprint(writesToGrant)),
		row("calls that Vault refused or failed (429, 5xx)", "0", "0"),
		row("peak memory of a sandbox", peak(ours.grant), ""))
	if !o.Short {
		rows = append(rows, row(fmt.Sprintf("%d repetitions: events a second, with no write anywhere", o.N), report.Rate(o.N, ours.repeat.took), ""))
	}
	rows = append(rows,
		rate(fmt.Sprintf("%d ends: instances a second, beside the same %d calls to Vault for each", o.N, calls(all.removal)), vault.removal, ours.removal.took, "≥ 0.8 ×"))
	if !o.Short {
		rows = append(rows, rate("beside those and the ledger's", withLedger.removal, ours.removal.took, ""))
	}
	return append(rows,
		row("processor time for each", ours.removal.used.of(o.N, ours.removal.took), ""),
		row("all removed, p50 / p99", quantiles(ours.removal.each), ""),
		row(fmt.Sprintf("event → token refused, p50 / p99 of %d tokens", len(ours.cutOff)), quantiles(ours.cutOff), ""),
		row("calls of DescribeInstances", fmt.Sprintf("%d for %d batches", ours.removal.describes, ours.removal.batches), fmt.Sprintf("≤ %d", o.N/50)),
		row("peak memory of a sandbox", peak(ours.removal), ""))
}
