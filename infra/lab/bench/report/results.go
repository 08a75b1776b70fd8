package report

import (
	"fmt"
	"slices"
	"time"
)

// Results are the figures of one run of the benchmarks. Times are in seconds unless a field says otherwise. A figure is 0 if
// the run did not measure it.
type Results struct {
	Run        Run
	Calls      Calls
	Warm       Warm
	Storms     []Storm
	Fleets     []Fleet
	Tables     []Table // as printed
	Comparison string  // the tables of comparing a fleet, as printed
}

// Run is the time, the machine and the versions of a run.
type Run struct {
	Date, Commit string
	System       string
	Cores        int
	Go           string
	Vault        string // product and version; empty if no storm was measured
}

// String returns the run in a sentence.
func (r Run) String() string {
	text := fmt.Sprintf("Measured on %s at commit %s, on %s with %d cores, Go %s", r.Date, r.Commit, r.System, r.Cores, r.Go)
	if r.Vault != "" {
		text += ", " + r.Vault
	}
	return text + "."
}

// Table is a table with its heading.
type Table struct {
	Heading string
	Rows    []Row
}

// Calls are the counted calls for one instance, those that a batch shares divided by its instances.
type Calls struct {
	StartToVault, StartAloneToVault, EndToVault float64
	StartToLedger, EndToLedger                  float64
}

// Warm is the time of one instance alone.
type Warm struct{ Ours, SameCalls, Writes float64 }

// Storm is the start and the end of many instances at once.
type Storm struct {
	Setup      Setup
	Instances  int
	Start, End Wave
}

// Setup is the servers of a storm.
type Setup struct {
	Raft    bool // else Vault's storage is in memory
	Delayed bool // 5 ms are added to each call to Vault
	Apart   bool // Vault has a core of its own
	// LedgerInMemory has a table in memory in place of DynamoDB Local: DynamoDB is a service, and uses no core of the machine.
	LedgerInMemory bool
}

// String returns the setup in words.
func (s Setup) String() string {
	text := "Vault in memory"
	if s.Raft {
		text = "Vault on Raft with fsync"
	}
	if s.Delayed {
		text += ", 5 ms added to every call to it"
	}
	switch {
	case s.Apart:
		text += ", on a core of its own"
	case s.LedgerInMemory:
		text += ", and the ledger too"
	}
	return text
}

// Wave is one event for each instance of a storm.
type Wave struct {
	CallsToVault float64 // for each instance, with its share of the batch's
	Ours         Pass
	SameCalls    Pass // to Vault, by bare HTTP
	Writes       Pass // the writes to Vault alone, by bare HTTP
	// Done[q] is the time until q per cent of the instances were done, for q from 0 to 100.
	Done []float64
}

// Pass is one way of doing the work of a wave.
type Pass struct {
	Seconds float64
	Used    Used
}

// Used is the processor time for each instance, in milliseconds.
type Used struct{ Vault, DynamoDBLocal, Functions, Bench float64 }

// Fleet is a comparison of a fleet beside the raw reads of the same objects.
type Fleet struct {
	Instances int
	Raw, Ours float64 // medians
	Ratio     float64 // the median of the rounds' ratios
	// Items is the number of items in the ledger, ItemsRead the number that a comparison read.
	Items, ItemsRead int
	PeakMB           float64 // resident
}

// Distribution returns the quantiles of the values from 0 to 100 per cent, in seconds.
func Distribution(all []time.Duration) []float64 {
	if len(all) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(all))
	out := make([]float64, 101)
	for q := range out {
		out[q] = sorted[q*(len(sorted)-1)/100].Round(time.Millisecond).Seconds()
	}
	return out
}
