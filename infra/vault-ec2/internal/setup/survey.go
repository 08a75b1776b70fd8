package setup

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

// reach is a path of this program and the harm that another policy could do there.
type reach struct {
	path  string
	needs []string // any one of these capabilities suffices
	could string   // the harm, as the end of a notice
}

// changes are the capabilities that change data; patch exists since Vault 1.9.
var changes = []string{"create", "update", "patch", "delete"}

// reaches returns the paths of this program that only the functions' and the instances' policies should be able to change.
func (s *setup) reaches() []reach {
	asks := []string{"create", "update"} // Vault requires either of them on a path that creates no object
	auth := grant.AuthMountPath(s.AuthMount)
	policies, logins := grant.NamePattern(grant.KindPolicy), grant.NamePattern(grant.KindAuthRole)
	all := []reach{
		{grant.PolicyPath(policies), changes, "change what instances may do"},
		{grant.OldPolicyPath(policies), changes, "change what instances may do"},
		{grant.AuthRolePath(s.AuthMount, logins), changes, "change who logs in as an instance"},
		{grant.AccessListPath(s.AuthMount, logins), changes, "let another client log in with an instance's identity document"},
		{grant.AuthConfigPath(s.AuthMount, "*"), changes, "change how logins on " + auth + " are checked"},
		{"sys/auth/" + s.AuthMount + "/tune", changes, "change how logins on " + auth + " are checked"},
	}
	for _, mount := range s.profiles.PKIMounts() {
		all = append(all,
			reach{"sys/mounts/" + mount + "/tune", changes, "change the owner of the mount " + mount},
			reach{mount + "/config/*", changes, "change how " + mount + " issues, or open ACME on it"})
		all = append(all, reach{grant.PKIRolePath(mount, "*"), changes, "change what certificates " + mount + " issues"})
		for _, by := range []string{mount, mount + "/issuer/+"} {
			for _, path := range []string{grant.IssuePath(by, "*"), grant.SignPath(by, "*")} {
				all = append(all, reach{path, asks, "get a certificate of any instance from " + mount})
			}
			for _, end := range []string{"sign-verbatim", "sign-verbatim/*"} {
				all = append(all, reach{by + "/" + end, asks, "get a certificate for any name from " + mount})
			}
		}
		for _, by := range []string{"root/", "issuer/+/"} {
			for _, end := range []string{"sign-intermediate", "sign-self-issued"} {
				all = append(all, reach{mount + "/" + by + end, asks, "make a CA below " + mount})
			}
		}
	}
	for _, mount := range s.profiles.Mounts().SSH {
		all = append(all,
			reach{"sys/mounts/" + mount + "/tune", changes, "change the owner of the mount " + mount},
			reach{mount + "/config/*", changes, "change the CA of " + mount},
			reach{grant.PKIRolePath(mount, "*"), changes, "change what certificates " + mount + " signs"},
			reach{grant.IssuePath(mount, "*"), asks, "get a host certificate of any instance from " + mount},
			reach{grant.SignPath(mount, "*"), asks, "get a host certificate of any instance from " + mount})
	}
	return all
}

// survey prints a notice for each rule of another policy that reaches the paths of this program, and for each name under
// the functions' patterns that no instance can have. A notice is not an error, since operators of Vault have such policies.
func (s *setup) survey(ctx context.Context) error {
	policies, err := s.list(ctx, grant.PolicyFolder)
	if err != nil {
		s.notice("other policies were not checked: %v", err)
	}
	for _, name := range policies {
		_, ours := grant.InstanceOf(grant.KindPolicy, name)
		switch {
		case s.isOwn(name), ours:
			continue
		case strings.HasPrefix(name, grant.NamePrefix(grant.KindPolicy)):
			s.notice("policy %s: no instance has a policy of this name, and the functions' tokens can write it: check it and delete it", name)
		}
		s.surveyPolicy(ctx, name)
	}
	folder := grant.AuthRoleFolder(s.AuthMount)
	if s.awaits(folder) {
		return nil
	}
	roles, err := s.list(ctx, folder)
	if err != nil {
		s.notice("the auth roles of %s were not checked: %v", grant.AuthMountPath(s.AuthMount), err)
	}
	for _, name := range roles {
		_, ours := grant.InstanceOf(grant.KindAuthRole, name)
		if !ours && strings.HasPrefix(name, grant.NamePrefix(grant.KindAuthRole)) {
			s.notice("auth role %s: no instance has this ID, and the functions' tokens can write it: check it and delete it", grant.AuthRolePath(s.AuthMount, name))
		}
	}
	return nil
}

// isOwn reports whether a policy is Vault's root policy or one of the functions'. Vault's default policy is checked: as
// shipped it reaches no object of an instance, but it can be changed.
func (s *setup) isOwn(name string) bool {
	if name == "root" {
		return true
	}
	return slices.ContainsFunc(rights.Functions(), func(f string) bool { return name == s.RolePrefix+"-"+f })
}

func (s *setup) surveyPolicy(ctx context.Context, name string) {
	data, err := s.read(ctx, grant.PolicyPath(name))
	if err != nil {
		s.notice("policy %s was not checked: %v", name, err)
		return
	}
	text, _ := data["policy"].(string)
	rules, err := parseRules(text)
	if err != nil {
		s.notice("policy %s was not checked: %v", name, err)
	}
	for _, r := range rules {
		if could := s.could(r); len(could) > 0 {
			s.notice("policy %s: path %q (%s) could %s", name, r.path, strings.Join(r.capabilities, " "), strings.Join(could, "; "))
		}
	}
}

// could returns the harm that a rule could do at the paths of this program, without duplicates.
func (s *setup) could(r rule) []string {
	if slices.Contains(r.capabilities, "deny") {
		return nil
	}
	var out []string
	path := parsePattern(r.path)
	for _, at := range s.reaches() {
		may := slices.ContainsFunc(at.needs, func(c string) bool { return slices.Contains(r.capabilities, c) })
		if may && !slices.Contains(out, at.could) && path.meets(parsePattern(at.path)) {
			out = append(out, at.could)
		}
	}
	return out
}

// rule is one path of a policy.
type rule struct {
	path         string
	capabilities []string
}

// oldPolicies are the capabilities of a rule's "policy", the form before capabilities. Vault still reads it.
var oldPolicies = map[string][]string{
	"deny": {"deny"}, "read": {"read", "list"}, "write": {"create", "read", "update", "delete", "list"},
	"sudo": {"create", "read", "update", "delete", "list", "sudo"},
}

// parseRules returns the path rules of a policy in HCL or JSON. It ignores the policy's other settings.
func parseRules(text string) ([]rule, error) {
	parsed, err := hcl.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parsing it: %w", err)
	}
	list, is := parsed.Node.(*ast.ObjectList)
	if !is {
		return nil, nil
	}
	var out []rule
	for _, item := range list.Filter("path").Items {
		if len(item.Keys) == 0 {
			continue
		}
		var fields struct {
			Policy       string   `hcl:"policy"`
			Capabilities []string `hcl:"capabilities"`
		}
		if err := hcl.DecodeObject(&fields, item.Val); err != nil {
			return out, fmt.Errorf("reading its path %s: %w", item.Keys[0].Token.Text, err)
		}
		path, _ := item.Keys[0].Token.Value().(string)
		out = append(out, rule{path: path, capabilities: slices.Concat(fields.Capabilities, oldPolicies[fields.Policy])})
	}
	return out, nil
}

// list returns the names in a folder; nil if the folder does not exist.
func (s *setup) list(ctx context.Context, path string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := s.vault.ListWithContext(ctx, path)
	if err != nil || answer == nil {
		return nil, err
	}
	var names []string
	keys, _ := answer.Data["keys"].([]any)
	for _, k := range keys {
		names = append(names, fmt.Sprint(k))
	}
	return names, nil
}
