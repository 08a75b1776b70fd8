package grant

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template/parse"
)

// MaxClaims is how many names and addresses one instance can hold: a DynamoDB transaction takes 100 items, and one is
// the record. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
const MaxClaims = 99

// Claim is a name or an address that one live instance alone may put into certificates of a PKI mount, or, for the FQDN,
// use below a base path.
type Claim struct {
	// Under is the PKI mount or the base path.
	Under string
	// Text is the name in lower case, or the address; where networks overlap the address with its VPC: 10.0.0.1@vpc-….
	Text string
}

// claims returns what an instance must hold for a grant, sorted, each once: its FQDN below the base path, and by PKI
// mount each name and address of its certificates that the profile does not declare to be shared.
func (r *rendering) claims() ([]Claim, error) {
	claims := map[Claim]bool{{Under: r.profile.BasePath, Text: r.values.FQDN}: true}
	for _, o := range r.profile.Outputs {
		if o.Type != KindPKIRole {
			continue
		}
		id, err := r.identity(o.Name)
		if err != nil {
			return nil, err
		}
		for _, text := range id.own {
			claims[Claim{Under: o.mount(r.profile.BasePath), Text: text}] = true
		}
	}
	out := slices.SortedFunc(maps.Keys(claims), func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.Under, b.Under), cmp.Compare(a.Text, b.Text))
	})
	if len(out) > MaxClaims {
		return nil, fmt.Errorf("the instance would hold %d names and addresses (each counts once for each PKI mount), and the ledger takes at most %d in one transaction: choose fewer in dns_names and ip_addresses",
			len(out), MaxClaims)
	}
	return out, nil
}

// constants are the values that are the same for every instance of a profile.
var constants = []string{"BasePath", "Profile", "Deployment", "OutputPath", "TemplateName"}

// varies reports whether a template may render differently for two instances of its profile.
func (c *compiled) varies() bool {
	for name := range c.fields {
		if !slices.Contains(constants, name) {
			return true
		}
	}
	return false
}

// reservations are the names and addresses that the profiles of a set keep for their own instances, by PKI mount and by
// base path. An instance must not come to hold one through a value of its own.
type reservations struct {
	// literals are the texts that stand in the profiles, with the profiles they stand in.
	literals map[Claim][]*Profile
	// patterns are the forms of names that profiles make from values.
	patterns map[string][]pattern
}

// pattern is the form of a name that a profile's template renders to.
type pattern struct {
	profile *Profile
	text    string // the expression, by which two are compared
	form    *regexp.Regexp
	// weight counts the characters that are fixed. Of two forms that a name has, the one with more fixed decides whose it is.
	weight int
}

func reserve(profiles []*Profile) *reservations {
	r := &reservations{literals: map[Claim][]*Profile{}, patterns: map[string][]pattern{}}
	for _, p := range profiles {
		r.add(p, p.BasePath, p.fqdn)
		for _, o := range p.Outputs {
			if o.Type != KindPKIRole {
				continue
			}
			for _, c := range append(slices.Concat(o.dnsNames, o.shared, o.addresses), o.commonName) {
				r.add(p, o.mount(p.BasePath), c)
			}
		}
	}
	return r
}

func (r *reservations) add(p *Profile, under string, c *compiled) {
	if !c.varies() && !c.fields["Deployment"] {
		if text, err := c.execute(values{BasePath: p.BasePath, Profile: p.Name}, nil); err == nil { // else rehearse says so
			claim := Claim{Under: under, Text: strings.ToLower(text)}
			r.literals[claim] = append(r.literals[claim], p)
		}
		return
	}
	made := patternOf(p, c)
	known := func(o pattern) bool { return o.profile == p && o.text == made.text }
	if made.weight > 0 && !slices.ContainsFunc(r.patterns[under], known) {
		r.patterns[under] = append(r.patterns[under], made)
	}
}

// check returns an error when a name that c rendered for an instance of p is another profile's, or one that the profiles
// share. Only a name that a tag chose is held against the forms of others' names: all else is AWS's to choose.
func (r *reservations) check(p *Profile, under string, c *compiled, text string) error {
	if !c.varies() || c.fixedFQDN(p) {
		return nil
	}
	if owners := r.literals[Claim{Under: under, Text: text}]; len(owners) > 0 {
		return fmt.Errorf("the name %q stands in profile %s for certificates of %s: no instance takes it through its own name", text, owners[0].Name, under)
	}
	if !p.tagChoosesFQDN() {
		return nil
	}
	own, weight := expression(p, c)
	for _, o := range r.patterns[under] {
		if o.text != own && o.weight >= weight && o.form.MatchString(text) {
			return fmt.Errorf("the name %q has the form of a name that profile %s gives to its instances in %s: a tag cannot choose it", text, o.profile.Name, under)
		}
	}
	return nil
}

// foreignAddress returns an error when an address of an instance of p stands in another profile for certificates of a
// mount, and not in p: a cluster's service address, say, that an instance was given as its own. own is true for one that
// stands in p itself, whose instances share it.
func (r *reservations) foreignAddress(p *Profile, mount, address string) (own bool, err error) {
	owners := r.literals[Claim{Under: mount, Text: address}]
	if len(owners) == 0 || slices.Contains(owners, p) {
		return len(owners) > 0, nil
	}
	return false, fmt.Errorf("the instance's address %s stands in profile %s for certificates of %s: it is not an instance's own", address, owners[0].Name, mount)
}

// fixedFQDN reports whether all that varies in a template is an FQDN that the profile fixes.
func (c *compiled) fixedFQDN(p *Profile) bool {
	if p.fqdn.varies() || !c.fields["FQDN"] {
		return false
	}
	for name := range c.fields {
		if name != "FQDN" && !slices.Contains(constants, name) {
			return false
		}
	}
	return true
}

// valueForms are the forms of values that AWS gives; of all others nothing is known.
var valueForms = map[string]string{
	"InstanceID": `i-[0-9a-f]+`, "InstanceHash": `i-[0-9a-f]+`, "InternalIPv4": `[0-9.]+`, "AccountID": `[0-9]{12}`,
	"Region": `[a-z]+(?:-[a-z]+)+-[0-9]+`, "AvailabilityZone": `[a-z]+(?:-[a-z]+)+-[0-9]+[a-z]`, "VPCID": `vpc-[0-9a-f]+`,
	"SubnetID": `subnet-[0-9a-f]+`, "ImageID": `ami-[0-9a-f]+`,
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-naming.html
	"PrivateDNSName": `(?:ip-[0-9]+-[0-9]+-[0-9]+-[0-9]+|i-[0-9a-f]+)\..+`,
}

// givenByAWS is the weight of a name whose form AWS gives: no tag chooses such a name.
const givenByAWS = 1000

// patternOf returns the form of what a template renders, with the profile's FQDN put in.
func patternOf(p *Profile, c *compiled) pattern {
	text, weight := expression(p, c)
	return pattern{profile: p, text: text, form: regexp.MustCompile("^(?:" + text + ")$"), weight: weight}
}

func expression(p *Profile, c *compiled) (text string, weight int) {
	var out strings.Builder
	for _, n := range c.template.Root.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			fixed := strings.ToLower(string(n.Text))
			out.WriteString(regexp.QuoteMeta(fixed))
			weight += len(fixed)
		case *parse.ActionNode:
			part, fixed := valueExpression(p, n)
			out.WriteString(part)
			weight += fixed
		default:
			out.WriteString(".+")
		}
	}
	return out.String(), weight
}

func valueExpression(p *Profile, n *parse.ActionNode) (text string, weight int) {
	const anything = ".+"
	if len(n.Pipe.Cmds) != 1 || len(n.Pipe.Cmds[0].Args) != 1 {
		return anything, 0
	}
	field, ok := n.Pipe.Cmds[0].Args[0].(*parse.FieldNode)
	if !ok {
		return anything, 0
	}
	switch name := field.Ident[0]; name {
	case "FQDN":
		return expression(p, p.fqdn)
	case "BasePath":
		return regexp.QuoteMeta(p.BasePath), len(p.BasePath)
	case "Profile":
		return regexp.QuoteMeta(p.Name), len(p.Name)
	case "PrivateDNSName":
		return valueForms[name], givenByAWS
	default:
		return cmp.Or(valueForms[name], anything), 0
	}
}
