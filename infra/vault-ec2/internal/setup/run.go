// Package setup prepares a Vault server for the functions: the AWS auth mount and its settings, a policy and a role for each function,
// made from the profiles, and on request the PKI mounts of the profiles. It writes only differences, so it can run at any time; a dry run
// writes nothing and prints them. A line that begins with "notice" reports something that is not changed, such as another policy that
// reaches the instances' objects.
//
// It connects to Vault as the vault command does: VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT, VAULT_NAMESPACE. It makes no namespace: it stops
// if the server has none of that name, or ignores namespaces.
package setup

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// The exit statuses. A wrong flag has the status 2, as with every command.
const (
	done   = 0
	failed = 1
)

// Options say how Vault is prepared.
type Options struct {
	Stack                 string                 // a deployed stack from which options are taken; empty for none
	Given                 func(flag string) bool // reports whether an option was given by its flag: the stack does not change it. nil: none was
	AuthMount, LoginMount string
	RolePrefix            string
	Deployment            string
	FunctionRoles         map[string]string // IAM role ARN by function
	ServerID              string
	STSRegion             string
	AWSEndpoint           string
	AWSKeys               bool
	ResolveUniqueIDs      bool
	STSRoles              map[string]string // IAM role ARN by account
	STSExternalID         string
	Certificates          map[string]string // file by region
	AlsoPaths, AlsoMounts []string          // where instances still have objects, and no profile or --auth-mount leads any more
	SetAlias, KeepAlias   bool
	Revoke                bool
	RevokeStored          bool
	PKI                   bool
	Templates             string
	DryRun                bool
	PrintPolicy           bool

	profiles  fs.FS  // of the stack; nil: those of Templates, or the built-in ones
	namespace string // of the stack; for a VAULT_NAMESPACE that is not set
}

// Defaults returns the options that prepare Vault for a deployment with default parameters, but for the names that only its operator
// knows.
func Defaults() Options {
	return Options{
		AuthMount: "aws", LoginMount: "aws", RolePrefix: grant.DefaultRules().RolePrefix, ResolveUniqueIDs: true,
		FunctionRoles: map[string]string{}, STSRoles: map[string]string{}, Certificates: map[string]string{},
	}
}

// Paths returns a function that checks a path in Vault and adds it to a list, for a flag that can be repeated.
func Paths(into *[]string) func(string) error {
	return func(s string) error {
		s = strings.Trim(s, "/")
		*into = append(*into, s)
		return grant.CheckBasePath(s)
	}
}

// Run prepares Vault and prints each step to out. It returns the exit status: 0, or 1 with an error. To print the policy for a token, it
// calls no Vault, and everything but the policy goes to progress.
func Run(ctx context.Context, o Options, out, progress io.Writer) (int, error) {
	about := out
	if o.PrintPolicy {
		about = progress
	}
	if o.Stack != "" {
		var err error
		if o, err = o.ofStack(ctx, about); err != nil {
			return failed, err
		}
	}
	if err := run(ctx, o, out); err != nil {
		return failed, err
	}
	return done, nil
}

func run(ctx context.Context, o Options, out io.Writer) error {
	var files fs.FS = templates.FS
	switch {
	case o.Templates != "":
		files = os.DirFS(o.Templates)
	case o.profiles != nil:
		files = o.profiles
	}
	// Instances may hold grants of a profile that breaks a rule which an earlier version did not have: the functions still
	// need its paths. The limit of a certificate's life is a setting of the functions.
	profiles, err := grant.LoadDeployed(files, grant.Rules{MaxTTL: math.MaxInt64, RolePrefix: o.RolePrefix})
	if err != nil {
		return fmt.Errorf("loading the profiles: %w", err)
	}
	if o.PrintPolicy {
		fmt.Fprint(out, bootstrapPolicy(profiles, o))
		return nil
	}
	client, namespace, err := newClient(o.namespace)
	if err != nil {
		return err
	}
	client.SetReadYourWrites(true) // a server that names its state is not read from before this command's writes
	s := setup{Options: o, vault: client.Logical(), api: client, namespace: namespace, profiles: profiles, out: out, made: map[string]bool{}}
	for _, p := range profiles.Profiles {
		if p.Barred != nil {
			s.notice("profile %s: nothing new is granted by it, and existing grants stay: %v", p.Name, p.Barred)
		}
	}
	if err := s.apply(ctx); err != nil {
		return err
	}
	verb := "changed"
	if o.DryRun {
		verb = "to change"
	}
	fmt.Fprintf(s.out, "%d of %d %s\n", s.changed, s.seen, verb)
	return nil
}
