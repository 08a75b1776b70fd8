package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/flags"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/setup"
)

func setupCommand() *cobra.Command {
	o := setup.Defaults()
	cmd := &cobra.Command{
		Use:     "setup",
		GroupID: groupDeployment,
		Short:   "Prepare Vault for the functions of a deployment",
		Long: `Prepare Vault for the functions: the AWS auth mount and its settings, a policy and a role for each function, made from the profiles, and with
--pki the profiles' PKI mounts. Only differences are written, so it can run at any time. A line that begins with "notice" is about something
that the command does not change.

With --stack, names, roles and regions are taken from the deployed stack where their flags are not given, and printed.

Vault is reached as by the vault command: VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT, VAULT_NAMESPACE.

Exit status: 0, 1 if Vault could not be prepared, 2 for a wrong flag.`,
		Example: `  vault-ec2 setup --stack vault-identities --dry-run
  vault-ec2 setup --stack vault-identities --print-policy > bootstrap.hcl`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	alsoNamed(f, "templates-dir", "templates")
	f.StringVar(&o.Stack, "stack", "", "`name` of a deployed stack from which the options without a flag are taken")
	f.StringVar(&o.AuthMount, "auth-mount", o.AuthMount, "AWS auth `mount` that receives one role per instance")
	f.StringVar(&o.LoginMount, "login-mount", o.LoginMount, "AWS auth `mount` the functions log in to")
	f.StringVar(&o.RolePrefix, "role-prefix", o.RolePrefix, "`prefix` of the functions' policies and roles")
	f.StringVar(&o.Deployment, "deployment", "", "`ID` of the deployment, the stack's name: the profiles' PKI mounts are marked as its own")
	f.Func("function-role", "IAM role of a function (provision, deprovision or reconcile), as `function=ARN`; repeat", flags.Pairs(o.FunctionRoles))
	f.StringVar(&o.ServerID, "server-id", "", "`value` the X-Vault-AWS-IAM-Server-ID header must have; one per Vault cluster")
	f.StringVar(&o.STSRegion, "sts-region", "", "`region` whose STS Vault calls: the functions' region, or VaultSTSRegion; empty keeps Vault's setting, by default sts.amazonaws.com, for which the functions do not sign")
	f.StringVar(&o.AWSEndpoint, "aws-endpoint", "", "`endpoint` for EC2, IAM and STS instead of AWS's own, for tests")
	f.BoolVar(&o.AWSKeys, "aws-keys", false, "write AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment to Vault, if it has no role of its own")
	f.BoolVar(&o.ResolveUniqueIDs, "resolve-unique-ids", o.ResolveUniqueIDs, "bind the functions' roles to IAM's unique IDs; Vault needs iam:GetRole for that")
	f.Func("sts-role", "role Vault assumes to check the instances of another account, as `account=ARN`; repeat", flags.Pairs(o.STSRoles))
	f.StringVar(&o.STSExternalID, "sts-external-id", "", "external `ID` that those roles require: ExternalId of infra/member-account; Vault 1.16 and OpenBao store none")
	f.Func("certificate", "AWS's RSA certificate of a region that Vault does not know, in PEM, as `region=file`: the key of the instances' identity documents there; repeat", flags.Pairs(o.Certificates))
	f.Func("also-path", "`path`, base path included, of objects that instances still have and no profile names any more; repeat", setup.Paths(&o.AlsoPaths))
	f.Func("also-auth-mount", "former --auth-mount: auth `mount` on which instances still have roles; repeat", setup.Paths(&o.AlsoMounts))
	f.BoolVar(&o.SetAlias, "set-alias", false, "make the instance ID the alias of logins on an existing auth mount too")
	f.BoolVar(&o.KeepAlias, "keep-alias", false, "continue although the aliases of an existing auth mount prevent removals from cutting tokens")
	f.BoolVar(&o.Revoke, "revoke-certificates", false, "let deprovision and reconcile revoke certificates (REVOKE_CERTIFICATES=true): needs sudo on sys/leases/revoke-prefix")
	f.BoolVar(&o.RevokeStored, "revoke-stored-certificates", false, "let them revoke stored certificates too (REVOKE_CERTIFICATES=all), which reaches every certificate of the PKI mounts; with --revoke-certificates")
	f.BoolVar(&o.PKI, "pki", false, "make the missing PKI and SSH mounts of the profiles, each with a CA of its own")
	f.StringVar(&o.Templates, "templates-dir", "", "`folder` of the profiles; empty for those that the stack uses, or the built-in ones")
	f.BoolVar(&o.DryRun, "dry-run", false, "print what would be written and write nothing")
	f.BoolVar(&o.PrintPolicy, "print-policy", false, "print the policy that a token needs for a run with the same flags; Vault is not called")
	o.Given = f.Changed
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, _ []string) (int, error) {
		return setup.Run(ctx, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
	})
	return cmd
}
