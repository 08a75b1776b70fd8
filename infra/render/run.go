package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
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

// options are the values of the flags.
type options struct {
	templates, profile, instance, facts string
	check                               bool
	rules                               grant.Rules
	realm                               grant.Realm
}

// parse reads the flags. With -h it prints them to out.
func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("render", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.templates, "templates", "templates", "`folder` of the profiles")
	flags.StringVar(&o.profile, "profile", "", "render this `profile`; without it, the one that matches the instance")
	flags.StringVar(&o.instance, "instance", "", "render for this `instance ID` in EC2, in the caller's account and region")
	flags.StringVar(&o.facts, "facts", "", "render for the instance described in this JSON `file`")
	o.rules = grant.DefaultRules()
	flags.BoolVar(&o.check, "check", false, "only check whether all profiles pass")
	flags.DurationVar(&o.rules.MaxTTL, "max-certificate-ttl", o.rules.MaxTTL, "longest max_ttl of a PKI role: MAX_CERTIFICATE_TTL of the functions")
	flags.StringVar(&o.rules.RolePrefix, "role-prefix", o.rules.RolePrefix, "`prefix` of the functions' own policies: VaultLoginRole of the stack")
	flags.StringVar(&o.realm.Deployment, "deployment", "vault-ec2-provisioner", "`name` for the ownership marker: the stack's name")
	flags.StringVar(&o.realm.AuthMount, "auth-mount", "aws", "auth `mount` that instances log in to")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(out)
			flags.PrintDefaults()
			return options{}, err
		}
		return options{}, fmt.Errorf("%w; -h lists the flags", err)
	}
	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("%q is not a flag; -h lists them", flags.Arg(0))
	case o.instance != "" && o.facts != "":
		return options{}, errors.New("-instance and -facts both name an instance: use one of them")
	case o.instance != "" && !facts.IsInstanceID(o.instance):
		return options{}, fmt.Errorf("-instance: %q is not the ID of an EC2 instance", o.instance)
	case !o.check && o.profile == "" && o.instance == "" && o.facts == "":
		return options{}, errors.New("name a profile with -profile, or an instance with -instance or -facts")
	}
	return o, nil
}

func run(ctx context.Context, o options, out io.Writer) (int, error) {
	set, err := grant.LoadBy(os.DirFS(o.templates), o.rules)
	if err != nil {
		return refused, fmt.Errorf("the profiles in %s are refused: %w", o.templates, err)
	}
	if o.check {
		fmt.Fprintf(out, "all %d profiles in %s pass\n", len(set.Profiles), o.templates)
		return granted, nil
	}
	var p *grant.Profile
	if o.profile != "" {
		if p, err = named(set, o.profile); err != nil {
			return broken, err
		}
	}
	var f facts.Instance
	var tags []string
	of := "from EC2"
	switch {
	case o.instance != "":
		needsRole := func(f facts.Instance) bool { return (p != nil && p.NeedsRole()) || set.NeedsRole(f) }
		f, err = fromEC2(ctx, o.instance, needsRole)
	case o.facts != "":
		f, err = fromFile(o.facts)
		of = "from " + o.facts
	default:
		f, tags = madeUp(p, o.realm)
		of = "made up"
	}
	if err != nil {
		return broken, err
	}
	fits, err := set.Match(f)
	if p == nil {
		p = fits
	}
	fmt.Fprintf(out, "instance: %s, %s\n", f.ID, of)
	if len(tags) > 0 {
		fmt.Fprintf(out, "tags:     %s, made up\n", strings.Join(tags, ", "))
	}
	switch {
	case err != nil:
		fmt.Fprintf(out, "REFUSED: %v\n", err)
		return refused, nil
	case p == nil:
		fmt.Fprintln(out, "no profile matches it: nothing would be granted")
		showMisses(out, set.Misses(f))
		return refused, nil
	}
	fmt.Fprintf(out, "profile:  %s\n", p.Name)
	if fits == p {
		return show(out, o, p, f, granted)
	}
	other := "no profile matches it, and nothing would be granted"
	if fits != nil {
		other = "profile " + fits.Name + " does"
	}
	fmt.Fprintf(out, "MISMATCH: the profile does not match this instance: %s\n", other)
	for _, m := range set.Misses(f) {
		if m.Profile == p {
			showUnmet(out, m)
		}
	}
	return show(out, o, p, f, refused)
}

// maxMisses bounds the profiles that are shown for an instance which no profile fits.
const maxMisses = 3

// showMisses prints the closest profiles with the conditions that the instance does not meet.
func showMisses(out io.Writer, misses []grant.Comparison) {
	for i, m := range misses[:min(len(misses), maxMisses)] {
		rank := "closest: "
		if i > 0 {
			rank = "then:    "
		}
		fmt.Fprintf(out, "%s %s\n", rank, m.Profile.Name)
		showUnmet(out, m)
	}
	if more := len(misses) - maxMisses; more > 0 {
		fmt.Fprintf(out, "and %d more profiles, which are further away\n", more)
	}
}

// showUnmet prints the conditions that the instance does not meet, one line each.
func showUnmet(out io.Writer, m grant.Comparison) {
	for _, unmet := range m.Unmet {
		fmt.Fprintf(out, "          %s\n", unmet)
	}
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

// show renders p for the instance f and prints the result. It returns the exit status, which is status if p renders.
func show(out io.Writer, o options, p *grant.Profile, f facts.Instance, status int) (int, error) {
	g, err := p.Render(f, o.realm)
	switch {
	case errors.Is(err, grant.ErrNotYet):
		fmt.Fprintf(out, "NOT YET:  %v (it is waited for until some minutes after the start, then refused)\n", err)
		return refused, nil
	case err != nil:
		fmt.Fprintf(out, "REFUSED:  %v\n", err)
		return refused, nil
	}
	fmt.Fprintf(out, "fqdn:     %s\nguard:    passed\n", g.FQDN)
	for _, c := range g.Claims {
		fmt.Fprintf(out, "claim:    %s below %s\n", c.Text, c.Under)
	}
	for _, object := range g.All() {
		fmt.Fprintf(out, "\n=== %s %s\n", object.Kind, object.Path)
		if text, ok := object.Fields["policy"].(string); ok && object.Kind == grant.KindPolicy {
			fmt.Fprint(out, text)
			continue
		}
		if err := writeFields(out, object); err != nil {
			return broken, err
		}
	}
	return status, nil
}

// writeFields prints the fields of an object, and those that only some servers have.
func writeFields(out io.Writer, o grant.Object) error {
	text, err := json.MarshalIndent(o.Fields, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", o.Path, err)
	}
	fmt.Fprintf(out, "%s\n", text)
	if len(o.Optional) == 0 {
		return nil
	}
	if text, err = json.Marshal(o.Optional); err != nil {
		return fmt.Errorf("writing %s: %w", o.Path, err)
	}
	fmt.Fprintf(out, "only on a server that has these fields (OpenBao): %s\n", text)
	return nil
}
