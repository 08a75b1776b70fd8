package reconcile

import (
	"cmp"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// PlaceTrouble is an account and region of EC2, or a folder of Vault, that could not be listed, or in which EC2 shows no instance
// although some are recorded.
type PlaceTrouble struct {
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`
	Folder  string `json:"folder,omitempty"`
	// Recorded is the number of recorded instances there; those of a folder have objects in it.
	Recorded int `json:"recorded"`
	// Withholds reports whether deletes are withheld because of it. A folder without a mount withholds none: it holds nothing.
	Withholds bool   `json:"withholds"`
	Error     string `json:"error"`
}

// trouble is a PlaceTrouble with the reason for which it withholds deletes; empty if it withholds none.
type trouble struct {
	PlaceTrouble
	reason string
}

func (t PlaceTrouble) isSamePlace(o PlaceTrouble) bool {
	return t.Account == o.Account && t.Region == o.Region && t.Folder == o.Folder
}

// placesOf returns the troubles, sorted. A reason of idle withholds nothing.
func placesOf(troubles []trouble, idle map[string]bool) []PlaceTrouble {
	var out []PlaceTrouble
	for _, t := range troubles {
		t.Withholds = t.reason != "" && !idle[t.reason]
		out = append(out, t.PlaceTrouble)
	}
	return JoinPlaces(nil, out)
}

// JoinPlaces returns the troubles of two parts of a run, each place once and sorted. later has the current numbers and errors.
func JoinPlaces(earlier, later []PlaceTrouble) []PlaceTrouble {
	out := slices.Clone(later)
	for _, t := range earlier {
		i := slices.IndexFunc(out, t.isSamePlace)
		if i < 0 {
			out = append(out, t)
			continue
		}
		out[i].Withholds = out[i].Withholds || t.Withholds
	}
	slices.SortFunc(out, func(a, b PlaceTrouble) int {
		return cmp.Or(byPlace(facts.Place{Account: a.Account, Region: a.Region}, facts.Place{Account: b.Account, Region: b.Region}), cmp.Compare(a.Folder, b.Folder))
	})
	return out
}
