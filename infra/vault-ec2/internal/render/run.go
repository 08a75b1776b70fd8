// Package render shows the objects that a profile would make for an instance: each path and content exactly as it would be written to
// Vault, and the guard's verdict. It writes nothing to Vault.
//
// The instance is one in EC2, looked up with the caller's own credentials and region, one described in a file, or one made up from the
// profile's match.
package render

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The exit statuses.
const (
	granted = 0 // the instance would be granted the printed objects
	refused = 1 // the instance would not be granted them
	broken  = 2 // the command failed
)

// Options say what is rendered.
type Options struct {
	Templates string // the folder of the profiles
	Profile   string // its name; empty for the one that matches the instance
	Instance  string // the ID of an instance in EC2
	Facts     string // a file that describes the instance
	Rules     grant.Rules
	Realm     grant.Realm
	JSON      bool
}

// Defaults returns the options for a deployment with default parameters.
func Defaults() Options {
	return Options{Templates: "templates", Rules: grant.DefaultRules(), Realm: grant.Realm{Deployment: "vault-ec2-provisioner", AuthMount: "aws"}}
}

func (o Options) check() error {
	switch {
	case o.Instance != "" && o.Facts != "":
		return errors.New("--instance and --facts both name an instance: use one of them")
	case o.Instance != "" && !facts.IsInstanceID(o.Instance):
		return fmt.Errorf("--instance: %q is not the ID of an EC2 instance", o.Instance)
	case o.Profile == "" && o.Instance == "" && o.Facts == "":
		return errors.New("name a profile with --profile, or an instance with --instance or --facts")
	}
	return nil
}

// Run renders and prints the result. It returns the exit status: 0 if the instance would be granted the printed objects, 1 if not, 2 with
// an error if the command itself failed. The status is 1 with an error where the profiles have faults.
func Run(ctx context.Context, o Options, out io.Writer) (int, error) {
	if err := o.check(); err != nil {
		return broken, err
	}
	if _, err := os.ReadDir(o.Templates); err != nil {
		return broken, fmt.Errorf("reading the folder of the profiles (--templates names yours): %w", err)
	}
	set, err := grant.LoadBy(os.DirFS(o.Templates), o.Rules)
	if err != nil {
		return refused, fmt.Errorf("the profiles in %s are refused: %w", o.Templates, err)
	}
	r, err := o.render(ctx, set)
	if err != nil {
		return broken, err
	}
	show := r.print
	if o.JSON {
		show = r.printJSON
	}
	if err := show(out); err != nil {
		return broken, fmt.Errorf("printing the result: %w", err)
	}
	if r.Verdict != Granted {
		return refused, nil
	}
	return granted, nil
}

// render returns the result for the chosen instance.
func (o Options) render(ctx context.Context, set *grant.Set) (*Result, error) {
	var p *grant.Profile
	var err error
	if o.Profile != "" {
		if p, err = named(set, o.Profile); err != nil {
			return nil, err
		}
	}
	f, r, err := o.instance(ctx, set, p)
	if err != nil {
		return nil, err
	}
	o.judge(r, set, p, f)
	return r, nil
}

// judge completes the result with what p grants the instance f; nil for the profile that matches f.
func (o Options) judge(r *Result, set *grant.Set, p *grant.Profile, f facts.Instance) {
	fits, err := set.Match(f)
	if p == nil {
		p = fits
	}
	switch {
	case err != nil:
		r.Verdict, r.Reason = Refused, err.Error()
		return
	case p == nil:
		r.Verdict, r.Reason = NoProfile, "no profile matches it: nothing would be granted"
		for _, m := range set.Misses(f) {
			r.Closest = append(r.Closest, Miss{Profile: m.Profile.Name, Unmet: unmet(m)})
		}
		return
	}
	r.Profile, r.Extends = p.Name, p.Extends
	for _, m := range p.Reconcile.Softer() {
		r.Modes = append(r.Modes, m.String())
	}
	r.fill(p.Render(f, o.Realm))
	if fits != p {
		r.mismatch(p, fits, set.Misses(f))
	}
}

// instance returns the facts of the chosen instance, and a result that names their source.
func (o Options) instance(ctx context.Context, set *grant.Set, p *grant.Profile) (f facts.Instance, r *Result, err error) {
	r = &Result{}
	switch {
	case o.Instance != "":
		r.Source = "from EC2"
		f, err = fromEC2(ctx, o.Instance, func(f facts.Instance) bool { return (p != nil && p.NeedsRole()) || set.NeedsRole(f) })
	case o.Facts != "":
		r.Source = "from " + o.Facts
		f, err = fromFile(o.Facts)
	default:
		r.Source = "made up"
		f, r.Tags = madeUp(p, o.Realm)
	}
	r.Instance = f.ID
	return f, r, err
}

func named(set *grant.Set, name string) (*grant.Profile, error) {
	var names []string
	for _, p := range set.Profiles {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return nil, fmt.Errorf("there is no profile %q; there are %s", name, strings.Join(names, ", "))
}
