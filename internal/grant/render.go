package grant

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// ErrNotYet marks the error of a rendering that lacks a value of the instance which may still come: one that AWS does not show
// yet, or a tag that is not set yet. The error names the value and its remedy. Its caller decides how long to wait.
var ErrNotYet = errors.New("not known yet")

// missingError is an ErrNotYet.
type missingError struct {
	what   string // the value that is missing
	remedy string
	tag    string // the key of the tag that is missing or empty; empty for another value
}

func (e *missingError) Error() string { return e.what + ": " + e.remedy }

// MissingTag returns the key of the tag for want of which a rendering failed; ok is false for another error.
func MissingTag(err error) (key string, ok bool) {
	missing := (*missingError)(nil)
	if !errors.As(err, &missing) {
		return "", false
	}
	return missing.tag, missing.tag != ""
}

func (e *missingError) Is(target error) bool { return target == ErrNotYet }

// Realm has the owner of grants and the auth mount that the instances log in to.
type Realm struct {
	Deployment string
	AuthMount  string
}

// Grant has all objects that Vault should have for one instance.
type Grant struct {
	Profile    *Profile
	InstanceID string
	FQDN       string
	// Objects are the policies, roles and generic objects in the profile's order.
	Objects []Object
	// AuthRole is written last and deleted first: the instance can log in only while it exists.
	AuthRole Object
	// Claims are the names, addresses and URIs that the instance alone may hold, sorted.
	Claims []Claim
	// CertificateTTL is the longest validity of a certificate of the grant: the longest max_ttl of its roles.
	CertificateTTL time.Duration
	// Backdated is the longest time by which the begin of a certificate of the grant lies before its issuance.
	Backdated time.Duration
}

// All returns the objects with the auth role at the end.
func (g *Grant) All() []Object { return append(slices.Clone(g.Objects), g.AuthRole) }

// Has reports whether an object of the grant has a path.
func (g *Grant) Has(path string) bool {
	return g.AuthRole.Path == path || slices.ContainsFunc(g.Objects, func(o Object) bool { return o.Path == path })
}

// Render returns the grant of one instance. It fails with kind fault.Retry around ErrNotYet if the instance lacks a value or a tag
// that the profile uses. Any other fault is of kind fault.Refuse, since a retry meets the same value and the same template.
func (p *Profile) Render(f facts.Instance, realm Realm) (*Grant, error) {
	g, err := p.render(f, realm, withGuard)
	return g, p.renderError(f, err)
}

// Draft is Render without the guard, at a small part of its cost. Compare its grant with what was written before, and never write
// it.
func (p *Profile) Draft(f facts.Instance, realm Realm) (*Grant, error) {
	g, err := p.render(f, realm, withoutGuard)
	return g, p.renderError(f, err)
}

// renderError returns the error of a rendering with its kind; nil for nil.
func (p *Profile) renderError(f facts.Instance, err error) error {
	if err == nil {
		return nil
	}
	kind := fault.Refuse
	if errors.Is(err, ErrNotYet) {
		kind = fault.Retry
	}
	return fault.New(kind, fmt.Errorf("rendering profile %s for instance %s: %w", p.Name, f.ID, err))
}

// guarding reports whether a rendering checks policies against their bounds, and compares the structure of every output with
// its structure under neutral values.
type guarding bool

const (
	withGuard    guarding = true
	withoutGuard guarding = false
)

func (p *Profile) render(f facts.Instance, realm Realm, guard guarding) (*Grant, error) {
	if p.Barred != nil {
		return nil, fmt.Errorf("nothing new is granted by this profile, and existing grants stay: %w", p.Barred)
	}
	if err := f.Check(); err != nil {
		return nil, err
	}
	if p.Auth.Type == "iam" && f.IAMRoleARN == "" {
		return nil, &missingError{what: "auth.type iam: the instance profile has no IAM role, so no principal can be bound", remedy: "add a role to the instance profile"}
	}
	if err := CheckDeployment(realm.Deployment); err != nil {
		return nil, err
	}
	f = f.Only(p.Addresses)
	v, err := p.values(f, realm.Deployment)
	if err != nil {
		return nil, err
	}
	g := &Grant{Profile: p, InstanceID: f.ID, FQDN: v.FQDN}
	actual := rendering{profile: p, values: v, identities: map[string]identity{}, guard: guard}
	neutral := rendering{profile: p, values: v.neutralised(), identities: map[string]identity{}, guard: guard}
	var policies []string
	for _, o := range p.Outputs {
		object, shape, err := actual.object(o)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", o.Name, err)
		}
		if shape != nil {
			_, neutralShape, err := neutral.object(o)
			if err != nil {
				return nil, fmt.Errorf("output %s with neutral values: %w", o.Name, err)
			}
			if !slices.Equal(shape, neutralShape) {
				return nil, fmt.Errorf("output %s: a name or tag of the instance changes the structure of %s: %q instead of %q",
					o.Name, o.Template, shape, neutralShape)
			}
		}
		g.Objects = append(g.Objects, object)
		if o.Type == KindPolicy {
			policies = append(policies, PolicyName(f.ID, o.Name))
		}
	}
	g.AuthRole = authRole(f, p, realm.AuthMount, policies)
	if g.Claims, err = actual.claims(); err != nil {
		return nil, err
	}
	for _, o := range g.Objects {
		if ttl, ok := o.Fields["max_ttl"].(int64); ok && o.Kind.signs() {
			g.CertificateTTL = max(g.CertificateTTL, time.Duration(ttl)*time.Second)
		}
		g.Backdated = max(g.Backdated, SecondsOf(o.Fields["not_before_duration"]))
	}
	return g, nil
}

// values returns the values for the profile's templates, the FQDN included. It fails if a used value is empty, and if the
// FQDN is not allowed.
func (p *Profile) values(f facts.Instance, deployment string) (values, error) {
	v := newValues(f, deployment, p)
	if missing := v.empty(p.used); len(missing) > 0 {
		return v, &missingError{what: fmt.Sprintf(".%s is empty", strings.Join(missing, ", .")), remedy: remedyFor(missing)}
	}
	if len(f.IPv4s)+len(f.IPv6s) == 0 {
		return v, &missingError{what: "the instance has no private address", remedy: "look at its network interfaces"}
	}
	name, err := p.fqdn.execute(v, nil)
	if err != nil {
		return v, err
	}
	v.FQDN = strings.ToLower(name)
	if err := CheckFQDN(v.FQDN); err != nil {
		return v, fmt.Errorf("fqdn: %w", err)
	}
	if err := p.reserved.check(p, p.BasePath, p.fqdn, v.FQDN); err != nil {
		return v, fmt.Errorf("fqdn: %w", err)
	}
	if len(p.FQDNSuffixes) > 0 && !slices.ContainsFunc(p.FQDNSuffixes, func(s string) bool { return underSuffix(v.FQDN, s) }) {
		return v, fmt.Errorf("fqdn: %q ends in none of fqdn_suffixes (%s)", v.FQDN, strings.Join(p.FQDNSuffixes, ", "))
	}
	return v, nil
}

// templates returns all templates that are executed for an instance.
func (p *Profile) templates() []*compiled {
	all := []*compiled{p.fqdn}
	for _, o := range p.Outputs {
		all = append(all, o.templates()...)
	}
	return all
}

// templates returns all templates that are executed for an output.
func (o Output) templates() []*compiled {
	if !o.Type.signs() {
		return []*compiled{o.body}
	}
	all := []*compiled{o.body}
	if o.commonName != nil {
		all = append(all, o.commonName)
	}
	return slices.Concat(all, o.dnsNames, o.shared, o.addresses, o.uris, o.sharedURIs)
}

// usedValues returns the names of all values that the profile's templates use, without the values that rendering itself
// makes.
func (p *Profile) usedValues() map[string]bool {
	used := map[string]bool{}
	for _, c := range p.templates() {
		for name := range c.fields {
			used[name] = true
		}
	}
	for _, made := range []string{"FQDN", "OutputPath", "TemplateName"} {
		delete(used, made)
	}
	return used
}

// onlyPKI returns the names of the fields of a PKI role that a role of the SSH engine does not have. A generic object with
// one of them would be a PKI role without a lock.
// https://developer.hashicorp.com/vault/api-docs/secret/ssh#create-update-role
func onlyPKI() []string {
	fields := freeFields()
	maps.Copy(fields, lockedFields(identity{}))
	maps.Copy(fields, optionalLocks(identity{}))
	for _, shared := range []string{"allowed_domains", "allowed_domains_template", "allow_bare_domains", "allow_subdomains",
		"ttl", "max_ttl", "key_type", "key_bits", "not_before_duration"} {
		delete(fields, shared)
	}
	return slices.Sorted(maps.Keys(fields))
}

// rendering renders the outputs of one profile with one set of values.
type rendering struct {
	profile    *Profile
	values     values
	identities map[string]identity // of pki-role outputs, by output name
	guard      guarding
}

// object returns the object of an output, and with the guard the structure of the template's text: nil if no name or tag of the
// instance can change it. The rehearsal has rendered such a text with neutral values.
func (r *rendering) object(o Output) (Object, []string, error) {
	if o.free != nil { // its structure is the same for all values
		object, err := r.role(o, o.free)
		return object, nil, err
	}
	v := r.values
	v.TemplateName, v.OutputPath = o.Name, o.Path
	v.plainTags = o.Type == KindGeneric
	generated := map[string]string{}
	var blocks []string // the texts of the functions that write rules, in order
	text, err := o.body.execute(v, func(function, target string) (string, error) {
		block, err := r.write(function, o.Name, target, generated)
		blocks = append(blocks, block)
		return block, err
	})
	if err != nil {
		return Object{}, nil, err
	}
	path := r.path(o)
	switch o.Type {
	case KindPolicy:
		object, shape, err := r.policy(o, text, blocks, generated)
		return object, shape, inTemplate(o.body.file, text, blocks, err)
	case KindPKIRole, KindSSHRole:
		fields, err := freeRoleFields(o.Type, text, r.profile.rules)
		if err != nil {
			return Object{}, nil, inTemplate(o.body.file, text, nil, err)
		}
		object, err := r.role(o, fields)
		if err != nil || !bool(r.guard) || !o.body.usesChosen() {
			return object, nil, err
		}
		free, err := decodeObject(text)
		return object, jsonShape("", free), err
	default:
		if mount, kind, below := r.profile.mounts.below(path); below {
			return Object{}, nil, fmt.Errorf("a generic object cannot be written into the %s: use type %s", r.profile.mounts.Describe(mount), kind)
		}
		fields, err := decodeObject(text)
		if err != nil {
			return Object{}, nil, inTemplate(o.body.file, text, nil, err)
		}
		for _, name := range onlyPKI() {
			if _, ok := fields[name]; ok {
				return Object{}, nil, fmt.Errorf("%s:%d: the field %q is one of a PKI role: use type pki-role, which locks it", o.body.file, fieldLine(text, name), name)
			}
		}
		object := Object{Kind: KindGeneric, Path: path, Fields: fields, Retain: o.retains()}
		if !bool(r.guard) || !o.body.usesChosen() {
			return object, nil, nil
		}
		return object, jsonShape("", fields), nil
	}
}

// path returns the path of a role or generic object.
func (r *rendering) path(o Output) string {
	return o.folder(r.profile.BasePath) + "/" + ObjectName(r.values.InstanceID, o.Name)
}

func (r *rendering) role(o Output, free map[string]any) (Object, error) {
	id, err := r.identity(o.Name)
	if o.Type == KindSSHRole {
		return Object{Kind: KindSSHRole, Path: r.path(o), Fields: locked(free, lockedSSHFields(id))}, err
	}
	return Object{Kind: KindPKIRole, Path: r.path(o), Fields: locked(free, lockedFields(id)), Optional: optionalLocks(id)}, err
}

func (r *rendering) policy(o Output, text string, blocks []string, generated map[string]string) (Object, []string, error) {
	v := r.values
	marker := Marker{Deployment: v.Deployment, InstanceID: v.InstanceID, Profile: v.Profile}
	object := Object{
		Kind:   KindPolicy,
		Path:   PolicyPath(PolicyName(v.InstanceID, o.Name)),
		Fields: map[string]any{"policy": marker.String() + "\n" + strings.TrimSpace(text) + "\n"},
	}
	if !r.guard {
		return object, nil, nil
	}
	rules, err := parsePolicy(text, generated)
	if err != nil {
		return Object{}, nil, err
	}
	b := bounds{basePath: r.profile.BasePath, generated: generated, mounts: r.profile.mounts}
	if err := errors.Join(b.check(rules), checkDocument(text, blocks)); err != nil {
		return Object{}, nil, err
	}
	// A name in a generated rule cannot change the structure, unless a function of the template changes the rule's text.
	asGenerated := 0
	for _, rule := range rules {
		if rule.AsGenerated {
			asGenerated++
		}
	}
	if asGenerated == len(generated) && !o.body.usesChosen() {
		return object, nil, nil
	}
	return object, shape(rules, generated), nil
}

// accessedBy returns the output of an access. ok is false if the profile has no such output of the function's kind.
func (p *Profile) accessedBy(a access) (o Output, ok bool) {
	i := slices.IndexFunc(p.Outputs, func(o Output) bool { return o.Name == a.output && o.Type == accessKinds[a.function] })
	if i < 0 {
		return Output{}, false
	}
	return p.Outputs[i], true
}

// access returns the text of pkiAccess or sshAccess for a role, and adds its rules to generated, for the guard.
func (r *rendering) access(a access, generated map[string]string) (string, error) {
	o, ok := r.profile.accessedBy(a)
	if !ok {
		return "", fmt.Errorf("%s %q names no %s output of this profile", a.function, a.output, accessKinds[a.function])
	}
	id, err := r.identity(o.Name)
	if err != nil {
		return "", err
	}
	mount, role := o.mount(r.profile.BasePath), ObjectName(r.values.InstanceID, o.Name)
	rules := accessRules(mount, role, id, r.profile.ClientStyle)
	if o.Type == KindSSHRole {
		rules = sshAccessRules(mount, role, id)
	}
	var blocks []string
	for _, rule := range rules {
		generated[rule.Path] = writeRule(rule)
		blocks = append(blocks, generated[rule.Path])
	}
	return strings.Join(blocks, "\n\n"), nil
}

// write returns the text of a function that writes rules of a policy, and adds its rules to generated, for the guard. target is the
// role of pkiAccess or sshAccess.
func (r *rendering) write(function, policy, target string, generated map[string]string) (string, error) {
	if function == identityAccess {
		return r.identityAccess(policy, generated)
	}
	return r.access(access{function, target}, generated)
}
