package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// loaded names the profiles, which the function loaded at its start.
func (d Doctor) loaded(context.Context) finding {
	var names []string
	for _, p := range d.Profiles.Profiles {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	if d.ProfilesRefused != nil {
		return bad("correct the profiles and run vault-ec2 apply again, or take them back with vault-ec2 apply --previous",
			"the wanted profiles are not used, and %d earlier ones go on (%s): %v", len(names), abbreviate(names), d.ProfilesRefused)
	}
	if len(names) == 0 {
		return bad("deploy the functions with profiles in templates/, or set TEMPLATES_DIR", "no profile is loaded: no instance gets access")
	}
	return good("%d profiles: %s", len(names), abbreviate(names))
}

// rules names the profiles that break a rule: nothing new is granted by them.
func (d Doctor) rules(context.Context) finding {
	var barred, faults []string
	for _, p := range d.Profiles.Profiles {
		if p.Barred != nil {
			barred = append(barred, p.Name)
			first, more, _ := strings.Cut(p.Barred.Error(), "\n")
			if more != "" {
				first += fmt.Sprintf(" (and %d more)", strings.Count(more, "\n")+1)
			}
			faults = append(faults, p.Name+": "+first)
		}
	}
	if len(barred) > 0 {
		// The names come first: a long detail is cut at its end.
		return bad("correct the profiles (vault-ec2 lint checks them) and deploy: see docs/upgrades.md",
			"nothing new is granted by %d profiles, and their existing grants stay: %s. The first fault of each: %s", len(barred), abbreviate(barred), abbreviate(faults))
	}
	return good("no profile breaks a rule")
}

// networks names the profiles whose certificates hold addresses but which name no VPC: with such a profile, anyone who may launch
// an instance with its role can claim an address in a network of their own first.
func (d Doctor) networks(context.Context) finding {
	var open []string
	for _, p := range d.Profiles.Profiles {
		if p.TakesAddresses() && len(p.Match.VPCIDs) == 0 {
			open = append(open, p.Name)
		}
	}
	if len(open) > 0 {
		return bad("name the VPCs in match.vpc_ids",
			"certificates hold the instances' addresses, but match.vpc_ids names no VPC: anyone who may launch an instance with the role in a network of their own can claim another instance's future address: %s", abbreviate(open))
	}
	return good("every profile whose certificates hold addresses names its VPCs")
}

// overlap names the pairs of profiles that one instance could match; it would be refused.
func (d Doctor) overlap(context.Context) finding {
	var pairs []string
	for _, pair := range d.Profiles.Overlaps() {
		pairs = append(pairs, fmt.Sprintf("%s with %s", pair[0], pair[1]))
	}
	if len(pairs) > 0 {
		return bad("make their match sections exclude each other in one field: other roles, or other values of the same tag",
			"one instance can match both profiles of a pair and would be refused: %s", abbreviate(pairs))
	}
	return good("no instance can match two profiles")
}
