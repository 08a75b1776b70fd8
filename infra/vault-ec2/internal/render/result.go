package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Verdict says whether the instance would be granted the objects.
type Verdict string

// The verdicts.
const (
	Granted   Verdict = "granted"
	Refused   Verdict = "refused"    // a rule forbids it
	NotYet    Verdict = "not-yet"    // AWS lacks a value that may still come
	Mismatch  Verdict = "mismatch"   // the named profile does not match the instance; the objects are what it would make
	NoProfile Verdict = "no-profile" // no profile matches
)

// Result is the answer of one run.
type Result struct {
	Instance string   `json:"instance"`
	Source   string   `json:"source"`         // of the instance's facts
	Tags     []string `json:"tags,omitempty"` // of a made-up instance, as key=value
	Profile  string   `json:"profile,omitempty"`
	Extends  string   `json:"extends,omitempty"` // the folder of the profile's base
	Modes    []string `json:"modes,omitempty"`   // the kinds of objects whose drift is not repaired, each with its mode
	Verdict  Verdict  `json:"verdict"`
	Reason   string   `json:"reason,omitempty"`
	Other    string   `json:"mismatch,omitempty"` // the named profile does not match the instance: what would be granted instead
	Unmet    []string `json:"unmet,omitempty"`    // with mismatch, the conditions of the profile that the instance does not meet
	Closest  []Miss   `json:"closest,omitempty"`  // without a profile, all profiles, the closest first
	FQDN     string   `json:"fqdn,omitempty"`
	Claims   []Claim  `json:"claims,omitempty"`
	Objects  []Object `json:"objects,omitempty"`
}

// Miss is a profile that does not match, with the conditions that the instance does not meet.
type Miss struct {
	Profile string   `json:"profile"`
	Unmet   []string `json:"unmet"`
}

// Claim is a name or an address that the instance alone would hold on a PKI mount.
type Claim struct {
	Text  string `json:"text"`
	Under string `json:"under"`
}

// Object is one object as it would be written to Vault.
type Object struct {
	Kind     grant.Kind     `json:"kind"`
	Path     string         `json:"path"`
	Fields   map[string]any `json:"fields"`
	Optional map[string]any `json:"optional,omitempty"` // fields that only some servers have
	Retain   bool           `json:"retain,omitempty"`   // it stays in Vault when the grant is removed
}

// fill sets the verdict, and the objects of a grant.
func (r *Result) fill(g *grant.Grant, err error) {
	switch {
	case errors.Is(err, grant.ErrNotYet):
		r.Verdict, r.Reason = NotYet, err.Error()
		return
	case err != nil:
		r.Verdict, r.Reason = Refused, err.Error()
		return
	}
	r.Verdict, r.FQDN = Granted, g.FQDN
	for _, c := range g.Claims {
		r.Claims = append(r.Claims, Claim{Text: c.Text, Under: c.Under})
	}
	for _, o := range g.All() {
		r.Objects = append(r.Objects, Object{Kind: o.Kind, Path: o.Path, Fields: o.Fields, Optional: o.Optional, Retain: o.Retain})
	}
}

// mismatch says that the named profile does not match; fits is the one that does, nil for none.
func (r *Result) mismatch(named, fits *grant.Profile, misses []grant.Comparison) {
	r.Other = "no profile matches it, and nothing would be granted"
	if fits != nil {
		r.Other = "profile " + fits.Name + " does"
	}
	for _, m := range misses {
		if m.Profile == named {
			r.Unmet = unmet(m)
		}
	}
	if r.Verdict == Granted {
		r.Verdict = Mismatch
	}
}

// unmet returns the conditions that the instance does not meet, as texts.
func unmet(m grant.Comparison) []string {
	out := []string{}
	for _, u := range m.Unmet {
		out = append(out, fmt.Sprint(u))
	}
	return out
}

func (r *Result) printJSON(out io.Writer) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return text.PrintJSON(out, raw)
}

// maxMisses bounds the profiles that are printed for an instance which no profile fits.
const maxMisses = 3

func (r *Result) print(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "instance: %s, %s\n", r.Instance, r.Source)
	if len(r.Tags) > 0 {
		fmt.Fprintf(&b, "tags:     %s, made up\n", strings.Join(r.Tags, ", "))
	}
	switch {
	case r.Verdict == NoProfile:
		b.WriteString(r.Reason + "\n")
		printMisses(&b, r.Closest)
	case r.Profile == "": // the choice of a profile is refused
		fmt.Fprintf(&b, "REFUSED: %s\n", r.Reason)
	default:
		if err := r.printGrant(&b); err != nil {
			return err
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printGrant prints what the profile would grant, or the reason why it would not.
func (r *Result) printGrant(b *strings.Builder) error {
	fmt.Fprintf(b, "profile:  %s\n", r.Profile)
	if r.Extends != "" {
		fmt.Fprintf(b, "extends:  %s/profile.yaml\n", r.Extends)
	}
	if len(r.Modes) > 0 {
		fmt.Fprintf(b, "drift:    %s\n", strings.Join(r.Modes, ", "))
	}
	if r.Other != "" {
		fmt.Fprintf(b, "MISMATCH: the profile does not match this instance: %s\n", r.Other)
		printUnmet(b, r.Unmet)
	}
	if r.Verdict == NotYet {
		fmt.Fprintf(b, "NOT YET:  %s (it is waited for until some minutes after the start, then refused)\n", r.Reason)
		return nil
	}
	if r.Verdict == Refused {
		fmt.Fprintf(b, "REFUSED:  %s\n", r.Reason)
		return nil
	}
	fmt.Fprintf(b, "fqdn:     %s\nguard:    passed\n", r.FQDN)
	for _, c := range r.Claims {
		fmt.Fprintf(b, "claim:    %s below %s\n", c.Text, c.Under)
	}
	for _, object := range r.Objects {
		stays := ""
		if object.Retain {
			stays = " (stays when the grant is removed)"
		}
		fmt.Fprintf(b, "\n=== %s %s%s\n", object.Kind, object.Path, stays)
		if policy, ok := object.Fields["policy"].(string); ok && object.Kind == grant.KindPolicy {
			b.WriteString(policy)
			continue
		}
		if err := object.print(b); err != nil {
			return err
		}
	}
	return nil
}

// printMisses prints the closest profiles with the conditions that the instance does not meet.
func printMisses(b *strings.Builder, misses []Miss) {
	for i, m := range misses[:min(len(misses), maxMisses)] {
		rank := "closest: "
		if i > 0 {
			rank = "then:    "
		}
		fmt.Fprintf(b, "%s %s\n", rank, m.Profile)
		printUnmet(b, m.Unmet)
	}
	if more := len(misses) - maxMisses; more > 0 {
		fmt.Fprintf(b, "and %d more profiles, which are further away\n", more)
	}
}

func printUnmet(b *strings.Builder, unmet []string) {
	for _, condition := range unmet {
		fmt.Fprintf(b, "          %s\n", condition)
	}
}

// print prints the fields of an object, and those that only some servers have.
func (o Object) print(b *strings.Builder) error {
	shown, err := json.MarshalIndent(o.Fields, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", o.Path, err)
	}
	fmt.Fprintf(b, "%s\n", shown)
	if len(o.Optional) == 0 {
		return nil
	}
	if shown, err = json.Marshal(o.Optional); err != nil {
		return fmt.Errorf("%s: %w", o.Path, err)
	}
	fmt.Fprintf(b, "only on a server that has these fields (OpenBao): %s\n", shown)
	return nil
}
