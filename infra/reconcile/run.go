package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// The exit statuses.
const (
	done   = 0 // nothing is left to do
	undone = 1 // something is left to do
	broken = 2 // the command failed
)

// options are the values of the flags.
type options struct {
	function string
	input    input
	json     bool
}

// parse reads the flags. With -h it prints them to out.
func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("reconcile", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.function, "function", "", "name or ARN of the reconcile function: the stack's output ReconcileFunctionName")
	mode := flags.String("mode", string(reconcile.Detect), "detect prints the drift, correct repairs it, doctor checks what the functions need, teardown removes everything")
	flags.Func("instance", "compare this `instance ID` only; repeat", func(s string) error {
		o.input.InstanceIDs = append(o.input.InstanceIDs, s)
		return nil
	})
	flags.StringVar(&o.input.Profile, "profile", "", "compare the instances of this `profile` only")
	flags.BoolVar(&o.input.Force, "force", false, "with correct, remove instances beyond the delete limit too")
	gone := reconcile.Gone{}
	flags.Func("gone-account", "remove what is recorded of this `account`, which no longer exists; repeat", func(s string) error {
		gone.Accounts = append(gone.Accounts, s)
		return nil
	})
	flags.Func("gone-instance", "remove what is recorded of this `instance ID`, which no longer exists; repeat", func(s string) error {
		gone.InstanceIDs = append(gone.InstanceIDs, s)
		return nil
	})
	flags.IntVar(&gone.AtMost, "at-most", 0, "with -gone-… and correct, the `number` of instances that detect reported")
	flags.StringVar(&o.input.Confirm, "yes", "", "with teardown, the `name` of the deployment, instead of a prompt")
	flags.BoolVar(&o.json, "json", false, "print the whole answer as JSON")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(out)
			flags.PrintDefaults()
			return options{}, err
		}
		return options{}, fmt.Errorf("%w; -h lists the flags", err)
	}
	o.input.Mode = reconcile.Mode(*mode)
	if len(gone.Accounts)+len(gone.InstanceIDs)+gone.AtMost > 0 {
		o.input.Gone = &gone
	}
	return o, o.check(flags.Args())
}

func (o options) check(rest []string) error {
	in := o.input
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%s is not a flag; -h lists them", strings.Join(rest, " "))
	case o.function == "":
		return errors.New("-function is missing: the stack's output ReconcileFunctionName; make reconcile STACK=<stack> finds it")
	case !slices.Contains([]reconcile.Mode{reconcile.Detect, reconcile.Correct, reconcile.Doctor, reconcile.Teardown}, in.Mode):
		return fmt.Errorf("-mode %s: the modes are detect, correct, doctor and teardown", in.Mode)
	case in.Confirm != "" && in.Mode != reconcile.Teardown:
		return errors.New("-yes is for -mode teardown")
	case in.Force && in.Mode != reconcile.Correct:
		return fmt.Errorf("-force is for -mode correct: %s deletes nothing", in.Mode)
	case (in.Mode == reconcile.Doctor || in.Mode == reconcile.Teardown) && (len(in.InstanceIDs) > 0 || in.Profile != ""):
		return fmt.Errorf("-mode %s is for the deployment as a whole: leave -instance and -profile out", in.Mode)
	case in.Gone != nil:
		return checkGone(in.Input)
	}
	return nil
}

// checkGone returns an error for flags of a removal by word that the function would refuse.
func checkGone(in reconcile.Input) error {
	switch {
	case in.Mode != reconcile.Detect && in.Mode != reconcile.Correct:
		return errors.New("-gone-account and -gone-instance are for -mode detect and correct")
	case len(in.Gone.Accounts)+len(in.Gone.InstanceIDs) == 0:
		return errors.New("-at-most is for -gone-account and -gone-instance")
	case in.Mode == reconcile.Correct && (!in.Force || in.Gone.AtMost < 1):
		return errors.New("with -mode correct, -gone-… needs -force, and -at-most with the number that -mode detect reports")
	case len(in.InstanceIDs) > 0 || in.Profile != "":
		return errors.New("-gone-… names its accounts and instances itself: leave -instance and -profile out")
	}
	return nil
}

// run invokes the function, prints its answer and returns the exit status.
func run(ctx context.Context, o options, in io.Reader, out, progress io.Writer) (int, error) {
	f, err := newFunction(ctx, o.function)
	if err != nil {
		return broken, err
	}
	if o.input.Mode == reconcile.Doctor {
		return runDoctor(ctx, f, o, out)
	}
	if o.input.Mode == reconcile.Teardown {
		return tearDown(ctx, f, o, in, out, progress)
	}
	a, raw, err := f.reconcile(ctx, o.input, progress)
	if err != nil {
		return broken, err
	}
	if err := o.print(out, raw, func() error { return printAnswer(out, a) }); err != nil {
		return broken, err
	}
	if n := a.Summary.Orphaned; o.input.Gone != nil && o.input.Mode == reconcile.Detect && n > 0 {
		fmt.Fprintf(progress, "reconcile: to remove them, run again with -mode correct -force -at-most %d\n", n)
	}
	return a.status(), nil
}

// print prints an answer: raw as JSON with -json, otherwise by calling text.
func (o options) print(out io.Writer, raw []byte, text func() error) error {
	if o.json {
		text = func() error { return printJSON(out, raw) }
	}
	if err := text(); err != nil {
		return fmt.Errorf("printing the answer of function %s: %w", o.function, err)
	}
	return nil
}

// runDoctor invokes the function, prints doctor's checks and returns the exit status.
func runDoctor(ctx context.Context, f function, o options, out io.Writer) (int, error) {
	raw, err := f.invoke(ctx, o.input)
	if err != nil {
		return broken, err
	}
	var r doctor.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return broken, fmt.Errorf("reading the answer of function %s: %w", o.function, err)
	}
	if err := o.print(out, raw, func() error { return printReport(out, r) }); err != nil {
		return broken, err
	}
	if !r.OK {
		return undone, nil
	}
	return done, nil
}
