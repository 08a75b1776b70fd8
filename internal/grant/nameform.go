package grant

import (
	"regexp"
	"strings"
	"text/template/parse"
)

// nameForm is the form of the names that a template of a profile renders.
type nameForm struct {
	profile *Profile
	text    string // form's expression: equal texts are equal forms
	form    *regexp.Regexp
	// byTag reports whether a tag chooses the name. A name of two such forms belongs to the form with more weight.
	byTag  bool
	weight int // the number of fixed characters
}

// Stand-ins for AWS's values. In a rendered name, each run of the letter stands for any letters, each run of the digit for any
// digits, hexadecimal ones included, and the domain for any text, since a VPC can have its own.
const (
	anyLetter, anyDigit, anyDomain = "q", "7", "zz"
	sampleRegion                   = "qq-qqqq-7"
)

// samples returns the values of instances in each form of name that AWS uses.
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

// formsOf returns the forms of the names that a template renders. Names made from AWS's values are rendered from samples. If
// a tag chooses a name, only its fixed text is known. An FQDN alone then has no form: two profiles that take their names from
// tags are kept apart by claims.
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
		if err != nil { // rehearse reports it
			continue
		}
		if text := generalised(strings.ToLower(name)); !seen[text] {
			seen[text] = true
			out = append(out, nameForm{profile: p, text: text, form: whole(text)})
		}
	}
	return out
}

// whole compiles an expression that matches whole names.
func whole(text string) *regexp.Regexp { return regexp.MustCompile("^(?:" + text + ")$") }

var sampled = regexp.MustCompile(anyDomain + "|" + anyLetter + "+|" + anyDigit + "+")

// generalised returns the expression of a name rendered from a sample.
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

// expression returns the expression of a name that a tag chooses, from the fixed text around its values, and the number of
// characters of that text.
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
