package render

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// regions are tried in this order for a pattern of regions.
var regions = []string{
	"us-east-1", "eu-central-1", "eu-west-1", "ap-southeast-1", "ap-northeast-1", "sa-east-1", "ca-central-1", "me-south-1", "af-south-1", "il-central-1", "mx-central-1",
	"us-west-2", "us-east-2", "us-west-1", "eu-north-1", "eu-south-1", "eu-west-2", "eu-west-3", "ap-south-1", "ap-east-1", "ap-northeast-2", "ap-southeast-2", "me-central-1",
	"cn-north-1", "cn-northwest-1", "us-gov-west-1", "us-gov-east-1", "eusc-de-east-1",
}

// madeUp returns an instance that matches p and has every value and tag that p's templates use. It returns the tags by which p
// chose them, in the form key=value, sorted.
func madeUp(p *grant.Profile, realm grant.Realm) (facts.Instance, []string) {
	f := facts.Instance{
		ID: "i-0123456789abcdef0", State: facts.Running, Account: "123456789012", Region: "us-east-1", VPCID: "vpc-0a1b2c3d",
		SubnetID: "subnet-0a1b2c3d", ImageID: "ami-0a1b2c3d4e5f60718", Type: "m5.large",
		IPv4s: []netip.Addr{netip.MustParseAddr("10.1.1.4")}, LaunchTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Tags: map[string]string{},
	}
	f.Account = accountOf(p.Match, f.Account)
	if patterns := p.Match.Regions; len(patterns) > 0 {
		f.Region = matching(patterns[0], regions...)
	}
	if patterns := p.Match.VPCIDs; len(patterns) > 0 {
		f.VPCID = matching(patterns[0], f.VPCID, strings.ReplaceAll(patterns[0], "*", "0a1b2c3d"))
	}
	f.AvailabilityZone = f.Region + "a"
	f.IAMRoleARN = arn(p.Match.IAMRoleARN, "role/", f.Account)
	f.IAMInstanceProfileARN = arn(p.Match.IAMInstanceProfileARN, "instance-profile/", f.Account)
	f.PrivateDNSName = "ip-10-1-1-4." + domain(p, f.Region)
	if p.Uses("IPv6s") {
		f.IPv6s = []netip.Addr{netip.MustParseAddr("2001:db8::4")}
	}
	for k, v := range p.Match.Tags {
		f.Tags[k] = filled(v)
	}
	addTags(p, &f, realm)
	var tags []string
	for _, k := range slices.Sorted(maps.Keys(f.Tags)) {
		tags = append(tags, k+"="+f.Tags[k])
	}
	return f, tags
}

// domain returns the domain of a private DNS name: EC2's for the region, or one that the profile allows, if it allows only others.
// https://docs.aws.amazon.com/vpc/latest/userguide/AmazonDNS-concepts.html
func domain(p *grant.Profile, region string) string {
	standard := region + ".compute.internal"
	if region == "us-east-1" {
		standard = "ec2.internal"
	}
	if len(p.FQDNSuffixes) == 0 || slices.ContainsFunc(p.FQDNSuffixes, func(s string) bool { return strings.HasSuffix("."+standard, "."+strings.TrimPrefix(s, ".")) }) {
		return standard
	}
	return strings.TrimPrefix(p.FQDNSuffixes[0], ".")
}

// maxTags is the greatest number of tags of an instance.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
const maxTags = 50

// addTags adds the tags that p's templates use and that match does not fix. It tries values that give a name within fqdn_suffixes.
func addTags(p *grant.Profile, f *facts.Instance, realm grant.Realm) {
	values := []string{"sample"}
	for _, suffix := range p.FQDNSuffixes {
		values = append(values, "sample."+strings.TrimPrefix(suffix, "."))
	}
	first := f.Tags
	for i, value := range values {
		tags := maps.Clone(f.Tags)
		for _, key := range p.TemplateTags() {
			tags[key] = cmp.Or(tags[key], value)
		}
		with := *f
		with.Tags = tags
		_, err := p.Render(with, realm)
		for range maxTags {
			key, isMissing := grant.MissingTag(err)
			if !isMissing {
				break
			}
			tags[key] = value // the key is known to the rendering only
			_, err = p.Render(with, realm)
		}
		if i == 0 {
			first = tags
		}
		if err == nil {
			f.Tags = tags
			return
		}
	}
	f.Tags = first
}

// accountOf returns the account of an instance: that of an ARN pattern, or one that account_ids allows.
func accountOf(m grant.Match, standard string) string {
	if len(m.AccountIDs) > 0 {
		return account(m.AccountIDs[0])
	}
	for _, patterns := range []grant.Patterns{m.IAMRoleARN, m.IAMInstanceProfileARN} {
		if len(patterns) == 0 {
			continue
		}
		if parts := strings.Split(patterns[0], ":"); len(parts) == arnParts && strings.Trim(parts[4], "*") != "" {
			return account(parts[4])
		}
	}
	return standard
}

// account returns an account ID that matches a pattern: its stars become zeros.
func account(pattern string) string {
	zeros := strings.Repeat("0", max(0, len("123456789012")-len(strings.ReplaceAll(pattern, "*", ""))))
	return strings.ReplaceAll(strings.Replace(pattern, "*", zeros, 1), "*", "")
}

// arnParts is the number of an ARN's parts between colons.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
const arnParts = 6

// arn returns an ARN that matches the first pattern. kind begins the resource: "role/" or "instance-profile/".
func arn(patterns grant.Patterns, kind, account string) string {
	pattern := "*"
	if len(patterns) > 0 {
		pattern = patterns[0]
	}
	resource := pattern[strings.LastIndexByte(pattern, ':')+1:]
	var candidates []string
	for _, partition := range []string{"aws", "aws-cn", "aws-us-gov"} {
		prefix := "arn:" + partition + ":iam::" + account + ":"
		candidates = append(candidates, prefix+kind+"sample")
		if strings.HasPrefix(resource, kind) {
			candidates = append(candidates, prefix+filled(resource))
		}
		candidates = append(candidates, prefix+kind+filled(strings.TrimLeft(resource, "*/")))
	}
	return matching(pattern, candidates...)
}

// matching returns the first candidate that matches a pattern; without one, the pattern with a text in place of each star.
func matching(pattern string, candidates ...string) string {
	for _, c := range candidates {
		if grant.Glob(pattern, c) {
			return c
		}
	}
	return filled(pattern)
}

// filled returns a text that matches pattern, with "sample" for each star.
func filled(pattern string) string { return strings.ReplaceAll(pattern, "*", "sample") }
