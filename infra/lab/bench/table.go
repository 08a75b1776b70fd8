package bench

import (
	"fmt"
	"io"
	"slices"
	"time"
)

const legend = `
raw is bare HTTP with the reconcile function's rights: it decodes the names of the lists, reads the objects whole and
discards them, and compares nothing. The ledger is DynamoDB Local, whose scan has its own line; EC2 is a generator in the
measured process, because moto takes 2 ms for each instance. Vault keeps its storage in memory and writes no audit log.
Client and servers share the machine. The measured process has the function's GOGC and GOMEMLIMIT=220MiB. Times are medians
over the rounds. A ratio is the median of the rounds' ratios, with the lowest and the highest.
`

// line is one comparison of the table: a pass beside its raw limit.
type line struct {
	what      string
	raw, ours func(round int) float64
}

func (f fleet) print(out io.Writer) {
	seconds := func(k kind, of func(result) time.Duration) func(int) float64 {
		return func(round int) float64 { return of(f.results[k][round]).Seconds() }
	}
	total := func(r result) time.Duration { return r.Time }
	afterScan := func(r result) time.Duration { return r.Time - r.Scan }
	cpu := func(r result) time.Duration { return r.CPU }
	withVault := func(r result) time.Duration { return r.CPU + r.Vault }
	withBoth := func(r result) time.Duration { return r.CPU + r.Vault + r.Dynamo }
	fmt.Fprintf(out, "\n%d instances, %d objects in Vault; raw reads by %s\n", f.n, f.n*objectsEach, f.fastest)
	fmt.Fprintf(out, "  %-44s %9s %9s   %s\n", "seconds", "raw", "ours", "ours / raw")
	for _, l := range []line{
		{"names only, beside the raw lists", seconds(rawLists, total), seconds(names, total)},
		{"  without the ledger's scan", seconds(rawLists, total), seconds(names, afterScan)},
		{"full contents, beside the raw reads", seconds(rawReads, total), seconds(contents, total)},
		{"  without the ledger's scan", seconds(rawReads, total), seconds(contents, afterScan)},
		{"  CPU time of client, Vault, DynamoDB Local", seconds(rawReads, withBoth), seconds(contents, withBoth)},
		{"  CPU time of client and Vault", seconds(rawReads, withVault), seconds(contents, withVault)},
		{"  CPU time of the client alone", seconds(rawReads, cpu), seconds(contents, cpu)},
	} {
		fmt.Fprintf(out, "  %-44s %9.3f %9.3f   %s\n", l.what, f.median(l.raw), f.median(l.ours), f.ratio(l))
	}
	scan := func(r result) time.Duration { return r.Scan }
	fmt.Fprintf(out, "  %-44s %9s %9.3f\n", "the ledger's scan", "", f.median(seconds(contents, scan)))
	items := func(r result) float64 { return float64(r.Items) / float64(f.n*itemsEach) }
	fmt.Fprintf(out, "  %-44s %9s %9.2f\n", "times that each of the ledger's items is read", "", items(f.results[contents][0]))
	for _, k := range []kind{names, contents} {
		heap, rss := f.memory(k)
		fmt.Fprintf(out, "  %-44s heap %.0f MB, resident %.0f MB\n", "peak memory of "+string(k), heap, rss)
	}
}

func (f fleet) median(of func(round int) float64) float64 {
	var all []float64
	for round := range f.results[contents] {
		all = append(all, of(round))
	}
	return median(all)
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// ratio returns the median, the lowest and the highest of the rounds' ratios of ours to raw.
func (f fleet) ratio(l line) string {
	var all []float64
	for round := range f.results[contents] {
		all = append(all, l.ours(round)/l.raw(round))
	}
	return fmt.Sprintf("%.2f [%.2f..%.2f]", median(all), slices.Min(all), slices.Max(all))
}

// memory returns the highest peaks of all rounds, in MB.
func (f fleet) memory(k kind) (heap, rss float64) {
	for _, r := range f.results[k] {
		heap, rss = max(heap, float64(r.Heap)/1e6), max(rss, float64(r.RSS)/1e6)
	}
	return heap, rss
}

// printGrowth compares the cost of one instance in each fleet with the cost in the next smaller one, and in the fleet of 10,000.
func printGrowth(out io.Writer, fleets []fleet) {
	for i := 1; i < len(fleets); i++ {
		growth(out, fleets[i-1], fleets[i])
		if base := slices.IndexFunc(fleets, func(f fleet) bool { return f.n == timed }); base >= 0 && base < i-1 {
			growth(out, fleets[base], fleets[i])
		}
	}
}

func growth(out io.Writer, small, large fleet) {
	fmt.Fprintf(out, "\nfrom %d to %d instances, cost of one instance (1.00: growth is linear)\n", small.n, large.n)
	each := func(f fleet, of float64) float64 { return of / float64(f.n) }
	times := map[kind]float64{}
	for _, k := range []kind{rawLists, names, rawReads, contents} {
		total := func(f fleet) float64 {
			return each(f, f.median(func(round int) float64 { return f.results[k][round].Time.Seconds() }))
		}
		times[k] = total(large) / total(small)
		fmt.Fprintf(out, "  %-44s × %.2f\n", "time of "+string(k), times[k])
	}
	fmt.Fprintf(out, "  %-44s × %.2f\n", "a full-content pass beside the raw reads", times[contents]/times[rawReads])
	for _, k := range []kind{names, contents} {
		smallHeap, _ := small.memory(k)
		largeHeap, _ := large.memory(k)
		fmt.Fprintf(out, "  %-44s × %.2f\n", "peak heap of "+string(k), each(large, largeHeap)/each(small, smallHeap))
	}
}
