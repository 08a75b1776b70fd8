package grant

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// values are the values that a template can use. The last three exported ones have the names that templates of
// https://github.com/jetstack/vault-plugin-auth-templated-aws use.
type values struct {
	InstanceID            string
	FQDN                  string
	InternalIPv4          string
	BasePath              string
	PrivateDNSName        string
	IPv4s                 []string
	IPv6s                 []string
	AccountID             string
	Region                string
	AvailabilityZone      string
	VPCID                 string
	SubnetID              string
	ImageID               string
	InstanceType          string
	IAMRoleARN            string
	IAMInstanceProfileARN string
	LaunchTime            string // RFC 3339, UTC
	Profile               string
	Deployment            string
	InstanceHash          string
	OutputPath            string
	TemplateName          string

	tags map[string]string
	// neutral replaces every tag by one harmless value: see neutralised.
	neutral bool
	// plainTags allows only plainCharacters in tags: in a generic object, any other character may have a meaning to the engine.
	plainTags bool
}

// Neutral stand-ins for the values that people choose: names and tags.
const (
	neutralTag  = "neutral"
	neutralFQDN = "f.invalid" // short, since a common name may contain it and has a bound
	neutralDNS  = "d.invalid"
)

func newValues(f facts.Instance, deployment string, p *Profile) values {
	v := values{
		InstanceID: f.ID, InstanceHash: f.ID, PrivateDNSName: strings.ToLower(f.PrivateDNSName),
		AccountID: f.Account, Region: f.Region, AvailabilityZone: f.AvailabilityZone, VPCID: f.VPCID,
		SubnetID: f.SubnetID, ImageID: f.ImageID, InstanceType: f.Type, IAMRoleARN: f.IAMRoleARN,
		IAMInstanceProfileARN: f.IAMInstanceProfileARN, BasePath: p.BasePath, Profile: p.Name,
		Deployment: deployment, tags: f.Tags,
	}
	for _, a := range f.IPv4s {
		v.IPv4s = append(v.IPv4s, a.String())
	}
	for _, a := range f.IPv6s {
		v.IPv6s = append(v.IPv6s, a.String())
	}
	if len(v.IPv4s) > 0 {
		v.InternalIPv4 = v.IPv4s[0]
	}
	if !f.LaunchTime.IsZero() {
		v.LaunchTime = f.LaunchTime.UTC().Format(time.RFC3339)
	}
	return v
}

// neutralised returns v with harmless values in place of those that people choose. Values that AWS alone sets stay: they have a
// closed form (facts.Instance.Check) that cannot change a structure, and lists keep their lengths.
func (v values) neutralised() values {
	v.neutral, v.tags = true, nil
	v.FQDN, v.PrivateDNSName = neutralFQDN, neutralDNS
	return v
}

// tagCharacters are the characters that every AWS service allows in tags. Quotes, braces, commas, globs, control and invisible
// characters have no place in a name or a path.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
const tagCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _.:/=+-@"

// plainCharacters are the characters that separate nothing in a path, an ARN, a query or a list.
const plainCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"

// maxTagValue is AWS's bound of a tag's value, in characters.
const maxTagValue = 256

// Tag returns the value of the instance's tag with a key. It fails for a tag that is missing, empty or too long, or has a
// character that is not allowed.
func (v values) Tag(key string) (string, error) {
	if v.neutral {
		return neutralTag, nil
	}
	value, ok := v.tags[key]
	switch {
	case !ok:
		return "", &missingError{fmt.Sprintf("instance %s has no tag %q", v.InstanceID, key), "set it", key}
	case value == "":
		return "", &missingError{fmt.Sprintf("the tag %q of instance %s is empty", key, v.InstanceID), "give it a value", key}
	case len(value) > maxTagValue:
		return "", fmt.Errorf("the tag %q of instance %s has more than %d characters", key, v.InstanceID, maxTagValue)
	}
	if !holdsOnly(value, tagCharacters) {
		return "", fmt.Errorf("the tag %q of instance %s is %+q: only letters, digits, spaces and _.:/=+-@ are allowed in a template",
			key, v.InstanceID, value)
	}
	if v.plainTags && !holdsOnly(value, plainCharacters) {
		return "", fmt.Errorf("the tag %q of instance %s is %+q: only letters, digits and _.- are allowed in a generic object",
			key, v.InstanceID, value)
	}
	return value, nil
}

func holdsOnly(s, characters string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(characters, r) }) < 0
}

// remedyFor returns the remedy for used values that are empty.
func remedyFor(missing []string) string {
	const standard = "AWS does not show it; an instance that never has it needs a profile without it"
	switch {
	case slices.Contains(missing, "InternalIPv4"):
		return standard + ", and an IPv6-only instance one with .IPv6s"
	case slices.Contains(missing, "IAMRoleARN"):
		return standard + ", or a role in its instance profile"
	}
	return standard
}

// empty returns the names of the used string values that are empty, sorted.
func (v values) empty(used map[string]bool) []string {
	var names []string
	value := reflect.ValueOf(v)
	for name := range used {
		if f := value.FieldByName(name); f.IsValid() && f.Kind() == reflect.String && f.Len() == 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
