package grant

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Profile says which instances it fits, and what each of them is granted.
type Profile struct {
	Name string `yaml:"name"`
	// Extends is the folder of the profile's base, beside its own; empty for none.
	Extends string `yaml:"extends"`
	// Abstract reports whether the file is a base alone, and no profile.
	Abstract     bool     `yaml:"abstract"`
	Match        Match    `yaml:"match"`
	BasePath     string   `yaml:"base_path"`
	FQDN         string   `yaml:"fqdn"`
	FQDNSuffixes []string `yaml:"fqdn_suffixes"`
	Auth         Auth     `yaml:"auth"`
	// ClientStyle is the style of the instances' requests for certificates: ClientMinimal (default) or ClientComplete.
	ClientStyle ClientStyle `yaml:"client_style"`
	// Addresses says which of an instance's addresses are in its certificates, and which its tokens are bound to. OwnAll is the default.
	Addresses facts.Owned `yaml:"addresses"`
	// OverlappingAddresses reports whether networks with equal addresses use the profile's PKI mounts. An address is then claimed
	// within its VPC, and match.vpc_ids must name the VPCs.
	OverlappingAddresses bool `yaml:"overlapping_addresses"`
	// Reconcile says what reconcile does about drift, by kind of object.
	Reconcile Modes    `yaml:"reconcile"`
	Outputs   []Output `yaml:"outputs"`

	// Digest is the hex SHA-256 of the profile's files.
	Digest string `yaml:"-"`
	// Barred names the rules that the profile breaks and that earlier versions did not have; nil if there are none. Load refuses
	// such a profile. LoadDeployed keeps it, so that its existing grants stay, and Render refuses.
	Barred error `yaml:"-"`

	file     string // its profile.yaml
	fqdn     *compiled
	used     map[string]bool // the names of the values that its templates use
	mounts   Mounts          // of the whole set
	reserved *reservations   // the names of the whole set's profiles
	accessed map[string]bool // the outputs that some policy names by pkiAccess or sshAccess
	rules    Rules
	unstored map[string]bool          // whether the certificates of an output are not stored
	leased   map[string]time.Duration // the longest lifetime of a leased certificate, by the output of its role
	issuers  map[string]string        // the issuer_ref of PKI roles for which it is fixed, by output
}

// Auth has the fields of an auth role that a profile chooses. The program sets the bindings.
type Auth struct {
	Type                  string        `yaml:"type"` // "ec2" (default) or "iam"
	TokenTTL              time.Duration `yaml:"token_ttl"`
	TokenMaxTTL           time.Duration `yaml:"token_max_ttl"`
	BindTokenToInstanceIP bool          `yaml:"bind_token_to_instance_ip"`
	ExtraPolicies         []string      `yaml:"extra_policies"`
}

// ClientStyle is the way in which a client fills in a request for a certificate.
type ClientStyle string

// The client styles. A closed parameter list refuses a field that is not on it, even an empty one.
const (
	ClientMinimal  ClientStyle = "minimal"  // sends only fields with a value: the vault command, Vault Agent, consul-template
	ClientComplete ClientStyle = "complete" // sends every field, also without a value: cert-manager and similar clients
)

// Output is one object that a profile renders for each instance.
type Output struct {
	Name       string   `yaml:"name"`
	Type       Kind     `yaml:"type"` // KindPolicy, KindPKIRole, KindSSHRole or KindGeneric
	Path       string   `yaml:"path"` // below the base path; empty for a policy
	CommonName string   `yaml:"common_name"`
	DNSNames   []string `yaml:"dns_names"`
	// SharedDNSNames are names that every instance of the profile may hold, such as a load balancer's or a cluster service's.
	SharedDNSNames []string `yaml:"shared_dns_names"`
	// SharedCommonName reports whether several instances may hold the common name, which is then not claimed.
	SharedCommonName bool     `yaml:"shared_common_name"`
	IPAddresses      []string `yaml:"ip_addresses"`
	URISANs          []string `yaml:"uri_sans"`
	// SharedURISANs are URIs that every instance of the profile may hold, such as a service's SPIFFE ID.
	SharedURISANs []string `yaml:"shared_uri_sans"`
	Template      string   `yaml:"template"`
	// OnRemoval says what becomes of the object when the instance's grant is removed.
	OnRemoval Removal `yaml:"on_removal"`

	source     string // the folder of its template
	body       *compiled
	free       map[string]any // the free fields of a role whose template uses no value, decoded once
	commonName *compiled
	dnsNames   []*compiled
	shared     []*compiled // from SharedDNSNames
	addresses  []*compiled // nil means all of the instance's own
	uris       []*compiled
	sharedURIs []*compiled // from SharedURISANs
}

// Set is a checked set of profiles.
type Set struct {
	Profiles []*Profile

	files int // the number of files of profiles, also of those with a fault
}

// Load reads every <folder>/profile.yaml of fsys and the templates beside it, by the default rules. The error has all faults of
// all profiles, each with its file.
func Load(fsys fs.FS) (*Set, error) { return LoadBy(fsys, DefaultRules()) }

// LoadBy is Load with the rules of a deployment.
func LoadBy(fsys fs.FS, rules Rules) (*Set, error) {
	set, faults, err := load(fsys, rules)
	if err != nil {
		return nil, err
	}
	all := joined(faults)
	for _, f := range set.barred() {
		all = append(all, fmt.Errorf("profile %s: %w", f.Profile, f.Err))
	}
	if err := errors.Join(all...); err != nil {
		return nil, err
	}
	return set, nil
}

// LoadDeployed is LoadBy for a deployment whose instances may have grants of an earlier version. It keeps a profile that breaks a
// rule which that version did not have, and sets its Barred.
func LoadDeployed(fsys fs.FS, rules Rules) (*Set, error) {
	set, faults, err := load(fsys, rules)
	if err == nil {
		err = errors.Join(joined(faults)...)
	}
	if err != nil {
		return nil, err
	}
	return set, nil
}

// Fault is the faults of one profile, or one of several profiles together.
type Fault struct {
	// File is the profile's file, <folder>/profile.yaml; empty for a fault of several profiles.
	File string
	// Profile is the profile's name; empty where it is unknown, and for a fault of several profiles.
	Profile string
	// Err may join several errors (errors.Join).
	Err error
}

// Check returns the number of the profiles in fsys and the faults of all of them, by the rules of a deployment. LoadBy accepts them if
// there are none. The error says that there is nothing to check.
func Check(fsys fs.FS, rules Rules) (int, []Fault, error) {
	set, faults, err := load(fsys, rules)
	if err != nil {
		return 0, nil, err
	}
	return set.files, append(faults, set.barred()...), nil
}

// barred returns the broken rules of each profile that breaks one.
func (s *Set) barred() []Fault {
	var faults []Fault
	for _, p := range s.Profiles {
		if p.Barred != nil {
			faults = append(faults, Fault{File: p.file, Profile: p.Name, Err: p.Barred})
		}
	}
	return faults
}

// joined returns the faults as errors that begin with the file.
func joined(faults []Fault) []error {
	var errs []error
	for _, f := range faults {
		if f.File == "" {
			errs = append(errs, f.Err)
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", f.File, f.Err))
	}
	return errs
}

// load returns the profiles of fsys that can be loaded, and all faults but broken rules, which bar a profile.
func load(fsys fs.FS, rules Rules) (*Set, []Fault, error) {
	files, err := fs.Glob(fsys, "*/profile.yaml")
	if err != nil {
		return nil, nil, fmt.Errorf("listing the profiles: %w", err)
	}
	if len(files) == 0 {
		return nil, nil, errors.New("no profile found: want <folder>/profile.yaml")
	}
	set := &Set{files: len(files)}
	var faults []Fault
	loaded := make([]*Profile, len(files))
	errs := forEach(len(files), func(i int) (err error) {
		loaded[i], err = loadProfile(fsys, files[i], rules)
		return err
	})
	add := func(p *Profile, err error) {
		if err != nil {
			faults = append(faults, Fault{File: p.file, Profile: p.Name, Err: err})
		}
	}
	seen := map[string]string{}
	for i, p := range loaded {
		if p.Abstract && errs[i] == nil {
			errs[i] = p.checkAbstract(slices.ContainsFunc(loaded, func(o *Profile) bool { return path.Join(o.Extends, "profile.yaml") == files[i] }))
			set.files--
		}
		if add(p, errs[i]); errs[i] != nil || p.Abstract {
			continue
		}
		if other, doubled := seen[p.Name]; doubled {
			add(p, fmt.Errorf("the name %q is also in %s", p.Name, other))
		}
		seen[p.Name] = files[i]
		set.Profiles = append(set.Profiles, p)
	}
	mounts, reserved := set.Mounts(), reservationsOf(set.Profiles)
	for _, p := range set.Profiles {
		p.mounts, p.reserved = mounts, reserved
	}
	for i, err := range forEach(len(set.Profiles), func(i int) error { return set.Profiles[i].rehearse() }) {
		add(set.Profiles[i], err)
	}
	for _, err := range set.checkTogether() {
		faults = append(faults, Fault{Err: err})
	}
	return set, faults, nil
}

// forEach calls do n times concurrently, since a function waits for it at every cold start. It returns the error of each call.
func forEach(n int, do func(i int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errs
}

// loadProfile reads one profile. With an error, the profile has as much as could be read, and never is nil.
func loadProfile(fsys fs.FS, file string, rules Rules) (*Profile, error) {
	p := &Profile{file: file, rules: rules, accessed: map[string]bool{}}
	texts, err := p.decode(fsys, file)
	if err != nil || p.Abstract {
		return p, err
	}
	if err := p.check(); err != nil {
		return p, err
	}
	sum := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(sum, "%d\n%s", len(text), text)
	}
	own := path.Dir(file)
	for i := range p.Outputs {
		p.Outputs[i].source = cmp.Or(p.Outputs[i].source, own)
	}
	c := compiler{profile: p, read: func(name string) (string, error) {
		body, err := fs.ReadFile(fsys, name)
		fmt.Fprintf(sum, "%s %d\n%s", strings.TrimPrefix(name, own+"/"), len(body), body)
		return string(body), err
	}}
	if err := c.compile(); err != nil {
		return p, err
	}
	p.bar(p.checkRules()...)
	p.used = p.usedValues()
	p.Digest = hex.EncodeToString(sum.Sum(nil))
	return p, nil
}

// check returns the faults of the values of a profile that are not templates, and sets defaults.
func (p *Profile) check() error {
	var faults []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	want(profileName.MatchString(p.Name), "name: %q is not of the form <cluster>-<role> (%s)", p.Name, profileName)
	want(len(p.Match.IAMRoleARN)+len(p.Match.IAMInstanceProfileARN) > 0, "match: iam_role_arn or iam_instance_profile_arn is required")
	for _, a := range p.Match.AccountIDs {
		want(facts.IsAccount(a) || accountPattern.Match(a), "match.account_ids: %q is neither an account ID nor a pattern of one", a)
	}
	if err := CheckBasePath(p.BasePath); err != nil {
		want(false, "base_path: %w", err)
	}
	want(p.FQDN != "", "fqdn: is required")
	for _, s := range p.FQDNSuffixes {
		want(CheckFQDN(strings.TrimPrefix(s, ".")) == nil, "fqdn_suffixes: %q is not a domain", s)
	}
	p.Auth.Type = cmp.Or(p.Auth.Type, "ec2")
	p.ClientStyle = cmp.Or(p.ClientStyle, ClientMinimal)
	p.Addresses = cmp.Or(p.Addresses, facts.OwnAll)
	owned := []facts.Owned{facts.OwnAll, facts.OwnInterfaces, facts.OwnPrimary}
	want(slices.Contains(owned, p.Addresses), "addresses: %q is none of %s, %s, %s", p.Addresses, owned[0], owned[1], owned[2])
	named := len(p.Match.VPCIDs) > 0 && !slices.ContainsFunc(p.Match.VPCIDs, func(id string) bool { return strings.Contains(id, "*") })
	want(!p.OverlappingAddresses || named, "overlapping_addresses: match.vpc_ids must name each VPC, without *: an address is then claimed within its VPC")
	want(p.ClientStyle == ClientMinimal || p.ClientStyle == ClientComplete, "client_style: %q is neither minimal nor complete", p.ClientStyle)
	want(p.Auth.Type == "ec2" || p.Auth.Type == "iam", "auth.type: %q is neither ec2 nor iam", p.Auth.Type)
	want(p.Auth.TokenTTL > 0, "auth.token_ttl: is required and positive")
	want(p.Auth.TokenMaxTTL >= p.Auth.TokenTTL, "auth.token_max_ttl: is shorter than token_ttl")
	want(p.Auth.TokenTTL%time.Second == 0 && p.Auth.TokenMaxTTL%time.Second == 0, "auth: TTLs must be whole seconds")
	for key, pattern := range p.Match.Tags {
		want(pattern != "", `match.tags: the pattern of %q is empty: write "*" for any value, also an empty one`, key)
	}
	for _, name := range p.Auth.ExtraPolicies {
		want(vaultPath.MatchString(name) && name != "root", "auth.extra_policies: %q cannot be a policy of an instance", name)
		want(!strings.HasPrefix(name, NamePrefix(KindPolicy)), "auth.extra_policies: %q has the form of a generated policy", name)
	}
	faults = append(faults, p.Reconcile.check()...)
	want(len(p.Outputs) > 0, "outputs: at least one is required")
	names := map[string]bool{}
	for i, o := range p.Outputs {
		where := fmt.Sprintf("outputs[%d] %q", i, o.Name)
		want(outputName.MatchString(o.Name), "%s: the name is not of the form %s", where, outputName)
		want(!names[o.Name], "%s: the name appears twice", where)
		names[o.Name] = true
		want(o.Template != "" && !strings.Contains(o.Template, "/"), "%s: template must be the name of a file beside profile.yaml", where)
		identity := o.CommonName != "" || o.SharedCommonName || o.DNSNames != nil || o.SharedDNSNames != nil || o.IPAddresses != nil ||
			o.URISANs != nil || o.SharedURISANs != nil
		faults = append(faults, o.checkRemoval(where, p.BasePath))
		switch o.Type {
		case KindPolicy:
			want(o.Path == "" && !identity, "%s: a policy has neither path nor names", where)
		case KindPKIRole:
			_, isRoles := SplitPKIRoleFolder(o.Path)
			want(vaultPath.MatchString(o.Path) && isRoles, "%s: path %q is not <PKI mount>/roles", where, o.Path)
		case KindSSHRole:
			_, isRoles := SplitPKIRoleFolder(o.Path)
			want(vaultPath.MatchString(o.Path) && isRoles, "%s: path %q is not <SSH mount>/roles", where, o.Path)
			want(o.CommonName == "" && !o.SharedCommonName && o.URISANs == nil && o.SharedURISANs == nil, "%s: a host certificate has neither a common name nor URIs", where)
		case KindGeneric:
			want(vaultPath.MatchString(o.Path) && !identity, "%s: a generic object has a path and no names", where)
			want(!slices.Contains(strings.Split(o.folder(p.BasePath), "/"), "data"), "%s: version 2 of the KV engine keeps deleted secrets: path %q is not supported", where, o.Path)
		default:
			want(false, "%s: type %q is none of policy, pki-role, ssh-role, generic", where, o.Type)
		}
	}
	return errors.Join(faults...)
}
