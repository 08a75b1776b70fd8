package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// loaded names the profiles. That they load is settled when the function starts.
func (d Doctor) loaded(context.Context) finding {
	var names []string
	for _, p := range d.Profiles.Profiles {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return bad("deploy the functions with profiles in templates/, or set TEMPLATES_DIR", "no profile is loaded: no instance is granted anything")
	}
	return good("%d profiles: %s", len(names), few(names))
}

// rules names the profiles by which nothing new is granted.
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
		return bad("mend the profiles (make render shows whether they pass) and deploy: see docs/upgrades.md",
			"nothing new is granted by %d profiles, and what was granted by them stands: %s. The first fault of each: %s", len(barred), few(barred), few(faults))
	}
	return good("no profile breaks a rule")
}

// networks names the profiles by which whoever may launch an instance with their role, in any network, may hold an
// address first.
func (d Doctor) networks(context.Context) finding {
	var open []string
	for _, p := range d.Profiles.Profiles {
		if p.TakesAddresses() && len(p.Match.VPCIDs) == 0 {
			open = append(open, p.Name)
		}
	}
	if len(open) > 0 {
		return bad("name the VPCs in match.vpc_ids",
			"certificates hold the instances' addresses and match.vpc_ids names no VPC: whoever may launch with the role in a network of their own can hold another's future address: %s", few(open))
	}
	return good("every profile whose certificates hold addresses names its VPCs")
}

// overlap names the profiles of which an instance could match two: it would be refused when it starts.
func (d Doctor) overlap(context.Context) finding {
	var pairs []string
	for _, pair := range d.Profiles.Overlaps() {
		pairs = append(pairs, fmt.Sprintf("%s with %s", pair[0], pair[1]))
	}
	if len(pairs) > 0 {
		return bad("make their match sections exclude each other in one field: other roles, or other values of the same tag",
			"one instance can match two profiles and would be refused: %s", few(pairs))
	}
	return good("no instance can match two profiles")
}
