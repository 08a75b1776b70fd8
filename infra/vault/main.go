// Command vault prepares a Vault server for the functions: the AWS auth mount and its settings, a policy and a role
// for each function, made from the profiles, and on request the PKI mounts of the profiles. It writes only differences,
// so it can run at any time; with -dry-run it writes nothing and prints them. A line that begins with "notice" reports
// something that the command does not change, such as another policy that reaches the instances' objects.
//
// It connects to Vault as the vault command does: VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT, VAULT_NAMESPACE. It makes no namespace: it stops
// if the server has none of that name, or ignores namespaces.
package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/signal"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// options are the values of the flags.
type options struct {
	authMount, loginMount string
	rolePrefix            string
	deployment            string
	functionRoles         map[string]string // IAM role ARN by function
	serverID              string
	stsRegion             string
	awsEndpoint           string
	awsKeys               bool
	resolveUniqueIDs      bool
	stsRoles              map[string]string // IAM role ARN by account
	stsExternalID         string
	certificates          map[string]string // file by region
	alsoPaths, alsoMounts []string
	setAlias, keepAlias   bool
	revoke                bool
	pki                   bool
	templatesDir          string
	dryRun                bool
	printPolicy           bool
}

func main() {
	o := options{functionRoles: map[string]string{}, stsRoles: map[string]string{}, certificates: map[string]string{}}
	flag.StringVar(&o.authMount, "auth-mount", "aws", "AWS auth mount that receives one role per instance")
	flag.StringVar(&o.loginMount, "login-mount", "aws", "AWS auth mount the functions log in to")
	flag.StringVar(&o.rolePrefix, "role-prefix", "ec2-provisioner", "prefix of the functions' policies and roles")
	flag.StringVar(&o.deployment, "deployment", "", "`ID` of the deployment, the stack's name: the profiles' PKI mounts are marked as its own")
	pairs(o.functionRoles, "function-role", "`function=ARN`: IAM role of a function, for provision, deprovision and reconcile; repeat")
	flag.StringVar(&o.serverID, "server-id", "", "value the X-Vault-AWS-IAM-Server-ID header must have; one per Vault cluster")
	flag.StringVar(&o.stsRegion, "sts-region", "", "region whose STS Vault calls: the functions' region, or VaultSTSRegion; empty keeps Vault's setting, by default sts.amazonaws.com, for which the functions do not sign")
	flag.StringVar(&o.awsEndpoint, "aws-endpoint", "", "endpoint for EC2, IAM and STS instead of AWS's own, for tests")
	flag.BoolVar(&o.awsKeys, "aws-keys", false, "write AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment to Vault, if it has no role of its own")
	flag.BoolVar(&o.resolveUniqueIDs, "resolve-unique-ids", true, "bind the functions' roles to IAM's unique IDs; Vault needs iam:GetRole for that")
	pairs(o.stsRoles, "sts-role", "`account=ARN`: role Vault assumes to check the instances of another account; repeat")
	flag.StringVar(&o.stsExternalID, "sts-external-id", "", "external ID that those roles require: ExternalId of infra/member-account; Vault 1.16 and OpenBao store none")
	pairs(o.certificates, "certificate", "`region=file`: AWS's RSA certificate of a region that Vault does not know, in PEM: the key of the instances' identity documents there; repeat")
	flag.Func("also-path", "`path`, base path included, of objects that instances still have and no profile names any more; repeat", func(s string) error {
		s = strings.Trim(s, "/")
		o.alsoPaths = append(o.alsoPaths, s)
		return grant.CheckBasePath(s)
	})
	flag.Func("also-auth-mount", "former -auth-mount: auth `mount` on which instances still have roles; repeat", func(s string) error {
		s = strings.Trim(s, "/")
		o.alsoMounts = append(o.alsoMounts, s)
		return grant.CheckBasePath(s)
	})
	flag.BoolVar(&o.setAlias, "set-alias", false, "make the instance ID the alias of logins on an existing auth mount too")
	flag.BoolVar(&o.keepAlias, "keep-alias", false, "continue although the aliases of an existing auth mount prevent removals from cutting tokens")
	flag.BoolVar(&o.revoke, "revoke-certificates", false, "let deprovision and reconcile revoke certificates (REVOKE_CERTIFICATES=true): needs sudo on sys/leases/revoke-prefix")
	flag.BoolVar(&o.pki, "pki", false, "make the missing PKI mounts of the profiles, each with a root of its own")
	flag.StringVar(&o.templatesDir, "templates-dir", "", "folder of profiles; empty for the built-in ones")
	flag.BoolVar(&o.dryRun, "dry-run", false, "print what would be written and write nothing")
	flag.BoolVar(&o.printPolicy, "print-policy", false, "print the policy that a token needs for a run with the same flags; Vault is not called")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "vault setup:", err)
		os.Exit(1) //nolint:gocritic // stop only unregisters the signal
	}
}

// pairs defines a flag of the form key=value that can be repeated.
func pairs(into map[string]string, name, usage string) {
	flag.Func(name, usage, func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" || value == "" {
			return fmt.Errorf("want key=value, got %q", s)
		}
		into[key] = value
		return nil
	})
}

func run(ctx context.Context, o options) error {
	var files fs.FS = templates.FS
	if o.templatesDir != "" {
		files = os.DirFS(o.templatesDir)
	}
	// Instances may hold grants of a profile that breaks a rule which an earlier version did not have: the functions still
	// need its paths. The limit of a certificate's life is a setting of the functions.
	profiles, err := grant.LoadDeployed(files, grant.Rules{MaxTTL: math.MaxInt64, RolePrefix: o.rolePrefix})
	if err != nil {
		return fmt.Errorf("loading the profiles: %w", err)
	}
	if o.printPolicy {
		fmt.Print(bootstrapPolicy(profiles, o))
		return nil
	}
	client, namespace, err := newClient()
	if err != nil {
		return err
	}
	client.SetReadYourWrites(true) // a server that names its state is not read from before this command's writes
	s := setup{options: o, vault: client.Logical(), api: client, namespace: namespace, profiles: profiles, out: os.Stdout, made: map[string]bool{}}
	for _, p := range profiles.Profiles {
		if p.Barred != nil {
			s.notice("profile %s: nothing new is granted by it, and existing grants stay: %v", p.Name, p.Barred)
		}
	}
	if err := s.apply(ctx); err != nil {
		return err
	}
	verb := "changed"
	if o.dryRun {
		verb = "to change"
	}
	fmt.Fprintf(s.out, "%d of %d %s\n", s.changed, s.seen, verb)
	return nil
}
