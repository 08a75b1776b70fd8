package doctor

import (
	"context"
	"fmt"
	"slices"
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
