package report

import (
	"fmt"
	"io"
)

// Goal is one line of the table of aims.
type Goal struct {
	What       string
	Bare, Ours string
	Value      float64 // the figure that has the aim
	Aim        float64
	AtLeast    bool   // the aim is a lower bound
	Unit       string // of Value: "×", "calls", "ms", "MB", …
}

// Met reports whether the aim is reached, by the figure as it is printed.
func (g Goal) Met() bool {
	var printed float64
	if _, err := fmt.Sscan(g.number(g.Value), &printed); err != nil {
		return false
	}
	if g.AtLeast {
		return printed >= g.Aim
	}
	return printed <= g.Aim
}

func (g Goal) number(f float64) string {
	if g.Unit == "MB" {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// distance returns "met", or by how much the aim is missed.
func (g Goal) distance() string {
	if g.Met() {
		return "met"
	}
	by := g.Value - g.Aim
	if g.AtLeast {
		by = -by
	}
	return fmt.Sprintf("**missed** by %s %s", g.number(by), g.Unit)
}

// PrintGoals writes the table of aims in Markdown.
func PrintGoals(out io.Writer, goals []Goal) {
	fmt.Fprintln(out, "| | bare | ours | figure | aim | |\n| --- | --- | --- | --- | --- | --- |")
	for _, g := range goals {
		sign := "≤"
		if g.AtLeast {
			sign = "≥"
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s %s | %s %g %s | %s |\n", g.What, g.Bare, g.Ours, g.number(g.Value), g.Unit, sign, g.Aim, g.Unit, g.distance())
	}
}

// Goals returns a line for each aim whose figure was measured.
func (r Results) Goals() []Goal {
	all := r.Calls.goals()
	all = append(all, r.stormGoals()...)
	if r.Warm.Writes > 0 {
		all = append(all, Goal{
			What: "one instance on the warm path, beside the chain of the writes alone", Bare: millis(r.Warm.Writes), Ours: millis(r.Warm.Ours),
			Value: r.Warm.Ours / r.Warm.Writes, Aim: 1.4, Unit: "×",
		})
	}
	return append(all, r.fleetGoals()...)
}

func (c Calls) goals() []Goal {
	var all []Goal
	for _, g := range []Goal{
		{What: "calls to Vault for a start, in batches of 50", Value: c.StartToVault, Aim: 5.3},
		{What: "the same alone", Value: c.StartAloneToVault, Aim: 9},
		{What: "calls to Vault for an end, in batches of 50", Value: c.EndToVault, Aim: 8.5},
		{What: "calls to the ledger for a start, in batches of 50", Value: c.StartToLedger, Aim: 2.1},
	} {
		if g.Value > 0 {
			g.Unit = "calls"
			all = append(all, g)
		}
	}
	return all
}

func (r Results) stormGoals() []Goal {
	var all []Goal
	shared, hasShared := r.Storm(Setup{})
	apart, hasApart := r.Storm(Setup{Apart: true, LedgerInMemory: true})
	if hasApart {
		all = append(all, apart.processorTime("on a core of its own")...)
	}
	if hasShared {
		all = append(all, shared.processorTime("on the same cores as all")...)
		all = append(all, shared.beside("starts beside the writes alone, all on the same cores", shared.Start, shared.Start.Writes, 0.35))
	}
	if s, ok := r.Storm(Setup{LedgerInMemory: true}); ok {
		all = append(all, s.beside("starts beside the writes alone, all but DynamoDB on the same cores", s.Start, s.Start.Writes, 0.35))
	}
	if hasApart {
		all = append(all, apart.beside("starts beside the writes alone, Vault on a core of its own", apart.Start, apart.Start.Writes, 0.75))
	}
	if s, ok := r.Storm(Setup{Delayed: true, Apart: true, LedgerInMemory: true}); ok {
		all = append(all,
			s.beside("starts beside the same calls, Vault on a core of its own, 5 ms added to each", s.Start, s.Start.SameCalls, 0.9),
			s.beside("ends beside the same calls, Vault on a core of its own, 5 ms added to each", s.End, s.End.SameCalls, 0.9))
	}
	return all
}

// processorTime returns the lines about processor time for a start. where says on which cores Vault runs.
func (s Storm) processorTime(where string) []Goal {
	ours, writes := s.Start.Ours.Used, s.Start.Writes.Used
	return []Goal{{
		What: "Vault's processor time for a start, beside the writes alone, Vault " + where, Bare: fmt.Sprintf("%.1f ms", writes.Vault),
		Ours: fmt.Sprintf("%.1f ms", ours.Vault), Value: ours.Vault / writes.Vault, Aim: 1.3, Unit: "×",
	}, {
		What: "the functions' own processor time for a start, Vault " + where, Value: ours.Functions, Aim: 2.2, Unit: "ms",
	}}
}

// beside compares the throughput of a wave with a bare pass.
func (s Storm) beside(what string, w Wave, bare Pass, aim float64) Goal {
	rate := func(p Pass) string { return fmt.Sprintf("%.0f/s", float64(s.Instances)/p.Seconds) }
	return Goal{
		What: Thousands(s.Instances) + " " + what, Bare: rate(bare), Ours: rate(w.Ours), Value: bare.Seconds / w.Ours.Seconds, Aim: aim, AtLeast: true, Unit: "×",
	}
}

// Storm returns the storm of a setup.
func (r Results) Storm(setup Setup) (s Storm, ok bool) {
	for _, s := range r.Storms {
		if s.Setup == setup {
			return s, true
		}
	}
	return s, false
}

// timed is the smallest fleet whose comparison has an aim: the parts that do not grow with it dominate a smaller one's.
const timed = 10_000

func (r Results) fleetGoals() []Goal {
	var large []Fleet
	for _, f := range r.Fleets {
		if f.Instances >= timed {
			large = append(large, f)
		}
	}
	if len(large) == 0 {
		return nil
	}
	var all []Goal
	for _, f := range large {
		all = append(all, Goal{
			What: fmt.Sprintf("comparing %s instances, beside the raw reads", Thousands(f.Instances)), Bare: seconds(f.Raw), Ours: seconds(f.Ours),
			Value: f.Ratio, Aim: 1.15, Unit: "×",
		})
	}
	first, last := large[0], large[len(large)-1]
	if len(large) > 1 {
		grown := func(of func(Fleet) float64) float64 {
			return (of(last) / float64(last.Instances)) / (of(first) / float64(first.Instances))
		}
		raw, ours := grown(func(f Fleet) float64 { return f.Raw }), grown(func(f Fleet) float64 { return f.Ours })
		all = append(all, Goal{
			What: fmt.Sprintf("growth of the cost of an instance from %s to %s, beside the raw reads' own", Thousands(first.Instances), Thousands(last.Instances)),
			Bare: fmt.Sprintf("%.2f ×", raw), Ours: fmt.Sprintf("%.2f ×", ours), Value: ours / raw, Aim: 1.05, Unit: "×",
		})
	}
	if last.Items > 0 {
		all = append(all, Goal{
			What: fmt.Sprintf("reads of a ledger item in a comparison of %s", Thousands(last.Instances)), Bare: Thousands(last.Items), Ours: Thousands(last.ItemsRead),
			Value: float64(last.ItemsRead) / float64(last.Items), Aim: 1, Unit: "×",
		})
	}
	return append(all, Goal{
		What: fmt.Sprintf("peak memory of a comparison of %s", Thousands(last.Instances)), Value: last.PeakMB, Aim: 256, Unit: "MB",
	})
}

func millis(s float64) string  { return fmt.Sprintf("%.1f ms", s*1000) }
func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }
