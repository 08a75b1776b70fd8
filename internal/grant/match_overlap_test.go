package grant_test

import (
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func twoProfiles(a, b grant.Match) *grant.Set {
	return &grant.Set{Profiles: []*grant.Profile{{Name: "alice-worker", Match: a}, {Name: "alice-etcd", Match: b}}}
}

func TestProfiles_OverlapUnlessOneFieldDiffers(t *testing.T) {
	for name, row := range map[string]struct {
		change func(a, b *grant.Match)
		want   bool
	}{
		"the same conditions":                  {func(*grant.Match, *grant.Match) {}, true},
		"other roles":                          {func(_, b *grant.Match) { b.IAMRoleARN = grant.Patterns{"arn:aws:iam::*:role/etcd"} }, false},
		"a role that the other's glob matches": {func(_, b *grant.Match) { b.IAMRoleARN = grant.Patterns{"arn:aws:iam::123456789012:role/*"} }, true},
		"two globs, neither within the other": {func(a, b *grant.Match) {
			a.IAMRoleARN, b.IAMRoleARN = grant.Patterns{"*:role/alice-*"}, grant.Patterns{"*-worker"}
		}, true},
		"a role against an instance profile": {func(_, b *grant.Match) {
			*b = grant.Match{IAMInstanceProfileARN: grant.Patterns{"*:instance-profile/etcd"}}
		}, true},
		"other instance profiles": {func(a, b *grant.Match) {
			a.IAMInstanceProfileARN, b.IAMInstanceProfileARN = grant.Patterns{"*/worker"}, grant.Patterns{"*/etcd"}
		}, false},
		"a second role that the other has": {func(a, _ *grant.Match) { a.IAMRoleARN = grant.Patterns{"arn:aws:iam::*:role/etcd", "*/worker"} }, true},
		"two lists of other roles": {func(a, b *grant.Match) {
			a.IAMRoleARN, b.IAMRoleARN = grant.Patterns{"*/x", "*/y"}, grant.Patterns{"*/v", "*/w"}
		}, false},
		"other accounts":                         {func(a, b *grant.Match) { a.AccountIDs, b.AccountIDs = []string{"1", "2"}, []string{"3"} }, false},
		"one account in common":                  {func(a, b *grant.Match) { a.AccountIDs, b.AccountIDs = []string{"1", "2"}, []string{"3", "2"} }, true},
		"accounts in one profile only":           {func(a, _ *grant.Match) { a.AccountIDs = []string{"1"} }, true},
		"other regions by globs":                 {func(a, b *grant.Match) { a.Regions, b.Regions = []string{"eu-*"}, []string{"us-*", "ap-*"} }, false},
		"a region that the other's glob matches": {func(a, b *grant.Match) { a.Regions, b.Regions = []string{"eu-*"}, []string{"us-*", "eu-west-1"} }, true},
		"other VPCs":                             {func(a, b *grant.Match) { a.VPCIDs, b.VPCIDs = []string{"vpc-1"}, []string{"vpc-2"} }, false},
		"one tag with other values": {func(a, b *grant.Match) {
			a.Tags, b.Tags = map[string]string{"role": "worker"}, map[string]string{"role": "etcd", "team": "x"}
		}, false},
		"one tag with a value in common": {func(a, b *grant.Match) {
			a.Tags, b.Tags = map[string]string{"role": "work*"}, map[string]string{"role": "*er"}
		}, true},
		"other tags: an instance can have both": {func(a, b *grant.Match) {
			a.Tags, b.Tags = map[string]string{"role": "worker"}, map[string]string{"team": "x"}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := grant.Match{IAMRoleARN: grant.Patterns{"arn:aws:iam::*:role/worker"}}, grant.Match{IAMRoleARN: grant.Patterns{"arn:aws:iam::*:role/worker"}}
			row.change(&a, &b)
			got := twoProfiles(a, b).Overlaps()
			if (len(got) > 0) != row.want {
				t.Errorf("%+v and %+v: want overlap %v, got %v", a, b, row.want, got)
			}
			if len(got) > 0 && got[0] != [2]string{"alice-etcd", "alice-worker"} {
				t.Errorf("want the two names, sorted, got %v", got)
			}
		})
	}
}

// It compares every pair of patterns of up to four characters of a, b and * with every word of up to six characters of a and b.
// That suffices: two such patterns that match a common word match one of that length.
func TestGlobs_OverlapOnACommonWord(t *testing.T) {
	words := texts("ab", 6)
	patterns := texts("ab*", 4)
	matched := map[string]map[string]bool{}
	for _, p := range patterns {
		matched[p] = map[string]bool{}
		set := &grant.Set{Profiles: []*grant.Profile{{Match: grant.Match{IAMRoleARN: grant.Patterns{p}}}}}
		for _, w := range words {
			if fits, _ := set.Match(facts.Instance{IAMRoleARN: w}); fits != nil {
				matched[p][w] = true
			}
		}
	}
	for _, p := range patterns {
		for _, q := range patterns {
			want := ""
			for w := range matched[p] {
				if matched[q][w] {
					want = w
					break
				}
			}
			got := len(twoProfiles(grant.Match{IAMRoleARN: grant.Patterns{p}}, grant.Match{IAMRoleARN: grant.Patterns{q}}).Overlaps()) > 0
			if got != (want != "") {
				t.Fatalf("%q and %q: got overlap %v, and the word that matches both is %q: after a missed pair, an instance is refused when it starts", p, q, got, want)
			}
		}
	}
}

// texts returns all texts of one to n of the characters.
func texts(characters string, n int) []string {
	var out []string
	last := []string{""}
	for range n {
		var next []string
		for _, t := range last {
			for _, s := range characters {
				next = append(next, t+string(s))
			}
		}
		out = append(out, next...)
		last = next
	}
	return out
}
