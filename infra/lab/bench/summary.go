package bench

import (
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

// summary returns the fleet's figures for the table of aims and the plots.
func (f fleet) summary() report.Fleet {
	seconds := func(k kind) func(int) float64 {
		return func(round int) float64 { return f.results[k][round].Time.Seconds() }
	}
	raw, ours := seconds(rawReads), seconds(contents)
	_, rss := f.memory(contents)
	return report.Fleet{
		Instances: f.n, Raw: f.median(raw), Ours: f.median(ours), PeakMB: rss,
		Items: f.n * itemsEach, ItemsRead: f.results[contents][0].Items,
		Ratio: f.median(func(round int) float64 { return ours(round) / raw(round) }),
	}
}
