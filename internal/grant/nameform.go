package grant

import (
	"regexp"
	"strings"
	"text/template/parse"
)

// nameForm is the form of the names that a profile's template renders to.
type nameForm struct {
	profile *Profile
	text    string // the expression, by which two are compared
	form    *regexp.Regexp
	// byTag: a tag chooses the name. Of two such forms that a name has, the one with more fixed text decides whose it is.
	byTag  bool
	weight int // how many characters are fixed
}

// Values for a look at what a template makes of AWS's values. In what it renders, each run of the letter stands for any
// letters, each run of the digit for any digits, also of hexadecimal numbers, and the domain for any text: a VPC's own.
const (
	anyLetter, anyDigit, anyDomain = "q", "7", "zz"
	sampleRegion                   = "qq-qqqq-7"
)

// samples are instances as AWS may name them.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-naming.html
func samples() []values {
	v := values{
		InstanceID: "i-77777777777777777", InstanceHash: "i-77777777777777777", AccountID: "777777777777", Region: sampleRegion,
		AvailabilityZone: sampleRegion + anyLetter, VPCID: "vpc-77777777777777777", SubnetID: "subnet-77777777777777777",
		ImageID: "ami-77777777777777777", InstanceType: "q7.qqqq", InternalIPv4: "7.7.7.7", IPv4s: []string{"7.7.7.7"}, IPv6s: []string{"7777:7::7"},
		IAMRoleARN: "arn:aws:iam::777777777777:role/qqqq", IAMInstanceProfileARN: "arn:aws:iam::777777777777:instance-profile/qqqq",
		LaunchTime: "7777-77-77T77:77:77Z", Deployment: anyDomain, tags: map[string]string{},
	}
	var out []values
	for _, name := range []string{
		"ip-7-7-7-7.ec2.internal", "ip-7-7-7-7." + sampleRegion + ".compute.internal",
		"i-77777777777777777.ec2.internal", "i-77777777777777777." + sampleRegion + ".compute.internal",
		"ip-7-7-7-7." + anyDomain, "i-77777777777777777." + anyDomain,
	} {
		v.PrivateDNSName = name
		out = append(out, v)
	}
	return out
}

// formsOf returns the forms of what a template renders to. Names that AWS's values make are rendered from samples; of those
// that a tag chooses only the fixed text is known, and for the FQDN alone not even that counts: two profiles that take their
// names from tags are told apart by the claims.
func formsOf(p *Profile, c *compiled) []nameForm {
	if c.byTag(p) {
		text, weight := expression(p, c)
		if c == p.fqdn || strings.TrimSpace(c.text) == "{{ .FQDN }}" || weight == 0 {
			return nil
		}
		return []nameForm{{profile: p, text: text, form: whole(text), byTag: true, weight: weight}}
	}
	var out []nameForm
	seen := map[string]bool{}
	for _, v := range samples() {
		v.BasePath, v.Profile = p.BasePath, p.Name
		fqdn, err := p.fqdn.execute(v, nil)
		v.FQDN = strings.ToLower(fqdn)
		name := ""
		if err == nil {
			name, err = c.execute(v, nil)
		}
		if err != nil { // rehearse says so
			continue
		}
		if text := generalised(strings.ToLower(name)); !seen[text] {
			seen[text] = true
			out = append(out, nameForm{profile: p, text: text, form: whole(text)})
		}
	}
	return out
}

func whole(text string) *regexp.Regexp { return regexp.MustCompile("^(?:" + text + ")$") }

var sampled = regexp.MustCompile(anyDomain + "|" + anyLetter + "+|" + anyDigit + "+")

// generalised makes an expression of a sample.
func generalised(name string) string {
	return sampled.ReplaceAllStringFunc(regexp.QuoteMeta(name), func(run string) string {
		switch run[:1] {
		case anyLetter:
			return "[a-z]+"
		case anyDigit:
			return "[0-9a-f]+"
		default:
			return ".+"
		}
	})
}

// expression returns what is known of a name that a tag chooses: the text around its values, and how much of it there is.
func expression(p *Profile, c *compiled) (text string, weight int) {
	var out strings.Builder
	for _, n := range c.template.Root.Nodes {
		if fixed, ok := n.(*parse.TextNode); ok {
			lower := strings.ToLower(string(fixed.Text))
			out.WriteString(regexp.QuoteMeta(lower))
			weight += len(lower)
			continue
		}
		if isFQDN(n) && c != p.fqdn {
			inner, fixed := expression(p, p.fqdn)
			out.WriteString(inner)
			weight += fixed
			continue
		}
		out.WriteString(".+")
	}
	return out.String(), weight
}

// isFQDN reports whether a node is the action {{ .FQDN }}.
func isFQDN(n parse.Node) bool {
	action, ok := n.(*parse.ActionNode)
	return ok && action.Pipe.String() == ".FQDN"
}
