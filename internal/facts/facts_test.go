package facts_test

import (
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

func TestForms_AcceptOnlyThoseOfAWS(t *testing.T) {
	for name, row := range map[string]struct {
		match   func(string) bool
		valid   []string
		invalid []string
	}{
		"instance IDs": {facts.IsInstanceID, []string{"i-01234567", "i-0123456789abcdef0"},
			[]string{"", "i-", "i-0123456", "i-0123456789ABCDEF0", "i-0123456789abcdef01", "x-01234567", "i-01234567\n", "i-01234567/..", "i-0123456g"}},
		"accounts": {facts.IsAccount, []string{"000000000000", "123456789012"}, []string{"", "12345678901", "1234567890123", "12345678901a", "123456789012\n"}},
		"regions": {facts.IsRegion, []string{"us-east-1", "eu-central-2", "us-gov-west-1", "cn-northwest-1", "ap-southeast-10", "us-iso-east-1"},
			[]string{"", "us-east", "us-east-1.evil.example", "US-EAST-1", "us_east_1", "us-east-1/", "-east-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range row.valid {
				if !row.match(s) {
					t.Errorf("%q is valid and was refused", s)
				}
			}
			for _, s := range row.invalid {
				if row.match(s) {
					t.Errorf("%q is invalid and was accepted: names and endpoints are built from it", s)
				}
			}
		})
	}
}
