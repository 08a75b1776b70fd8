package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/cpu"
)

// ChildArgument is the only argument of a measured process. The program then calls Measure and nothing else.
const ChildArgument = "measure"

// kind says what a process measures.
type kind string

// The kinds.
const (
	rawLists kind = "the raw lists"
	rawReads kind = "the raw reads"
	names    kind = "a names-only pass"
	contents kind = "a full-content pass"
)

// task is one measurement.
type task struct {
	Kind       kind
	N          int // instances
	Place      place
	Client     client // of raw measurements
	CPUProfile string // file for pprof; empty for none
}

// result is the outcome of one measurement.
type result struct {
	Time time.Duration
	Scan time.Duration // the part of Time that read the ledger
	CPU  time.Duration // of the measured process
	// Vault and Dynamo are the CPU times of the two servers during the task; 0 where the system does not report them.
	Vault  time.Duration
	Dynamo time.Duration
	Items  int    // of the ledger that DynamoDB read for scans
	Heap   uint64 // peak of the bytes of objects on the heap
	RSS    uint64 // peak of the bytes in memory; 0 where the system does not report it
}

// measure runs a task in a process of its own and adds the servers' CPU time to its result.
func (b *world) measure(ctx context.Context, t task) (result, error) {
	t.Place = b.place
	var r result
	self, err := os.Executable()
	if err != nil {
		return r, fmt.Errorf("finding this program to measure %s: %w", t.Kind, err)
	}
	in, err := json.Marshal(t)
	if err != nil {
		return r, fmt.Errorf("encoding the task to measure %s: %w", t.Kind, err)
	}
	var out, faults bytes.Buffer
	child := exec.CommandContext(ctx, self, ChildArgument)
	// By standard input: an argument would show the token in the list of processes.
	child.Stdin, child.Stdout, child.Stderr = bytes.NewReader(in), &out, &faults
	child.Env = append(os.Environ(), memorySettings()...)
	vault, dynamo := cpu.Of(b.vault.PID()), cpu.Of(b.dynamoDB.PID())
	if err := child.Run(); err != nil {
		return r, fmt.Errorf("measuring %s of %d instances: %w: %s", t.Kind, t.N, err, bytes.TrimSpace(faults.Bytes()))
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("measuring %s of %d instances: reading the result: %w", t.Kind, t.N, err)
	}
	if r.Time <= 0 {
		return r, fmt.Errorf("measuring %s of %d instances: it took no time", t.Kind, t.N)
	}
	r.Vault, r.Dynamo = cpu.Of(b.vault.PID())-vault, cpu.Of(b.dynamoDB.PID())-dynamo
	return r, nil
}

// memorySettings are those of the reconcile function, with a limit for a peak of 256 MB instead of one for 512: the garbage collector
// uses what it is allowed, and the limit shows what a comparison needs.
func memorySettings() []string { return []string{"GOGC=400", "GOMEMLIMIT=220MiB"} }

// Measure is the measured process: it reads a task, runs it and writes the result.
func Measure(ctx context.Context, in io.Reader, out io.Writer) error {
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("reading the task: %w", err)
	}
	var stopProfile func() error
	work, scanned, err := t.work(ctx)
	if err == nil {
		stopProfile, err = profile(t.CPUProfile)
	}
	if err != nil {
		return err
	}
	memory := watchMemory()
	used, start := cpu.Self(), time.Now()
	err = work()
	r := result{Time: time.Since(start), CPU: cpu.Self() - used}
	r.Heap, r.RSS = memory.peak()
	if err := errors.Join(err, stopProfile()); err != nil {
		return err
	}
	if scanned != nil {
		r.Scan, r.Items = scanned.scan, int(scanned.items.Load())
	}
	return json.NewEncoder(out).Encode(r)
}

// work prepares a task and returns the part to measure. Everything that a warm function has ready, such as the loaded
// profiles, is made here. scanned is the ledger with its scan, nil for a raw task.
func (t task) work(ctx context.Context) (work func() error, scanned *timedLedger, err error) {
	switch t.Kind {
	case rawLists, rawReads:
		v, err := newVaultHTTP(t.Place, t.Client)
		if err != nil {
			return nil, nil, err
		}
		do := v.reads
		if t.Kind == rawLists {
			do = v.lists
		}
		return func() error { return do(ctx, t.N) }, nil, nil
	case names, contents:
		c, err := newComparison(t.Place, t.N)
		if err != nil {
			return nil, nil, err
		}
		return func() error { return c.run(ctx, t.Kind == names) }, c.ledger, nil
	}
	return nil, nil, fmt.Errorf("unknown task %q", t.Kind)
}

// profile writes a CPU profile until stop is called. It writes none if file is empty.
func profile(file string) (stop func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("making the CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, fmt.Errorf("writing the CPU profile %s: %w", file, err)
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
