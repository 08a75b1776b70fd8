package tryout

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
)

const (
	deployPatience = 20 * time.Minute
	commandTimeout = 10 * time.Minute
)

//go:embed profile
var profileFiles embed.FS

// makePlaces makes all places and waits for Vault.
func (t *tryout) makePlaces(ctx context.Context) bool {
	for _, p := range t.places {
		t.j.doing("making the network in %s", p)
		since := time.Now()
		if !t.j.check("The network stands in "+p.String(), since, t.makePlace(ctx, p)) {
			return false
		}
	}
	t.j.doing("waiting for Vault %s", t.o.VaultVersion)
	since := time.Now()
	err := t.reachVault(ctx)
	return t.j.check("Vault "+t.o.VaultVersion+" starts on its instance and answers here", since, err)
}

func (t *tryout) reachVault(ctx context.Context) error {
	var err error
	if t.facts, err = t.awaitVault(ctx, t.home()); err != nil {
		return err
	}
	if err := os.WriteFile(t.caFile(), []byte(t.facts.CA), 0o600); err != nil {
		return err
	}
	c := vaultapi.DefaultConfig()
	c.Address, c.Timeout, c.MaxRetries = t.facts.Public, callTimeout, 2
	if err := c.ConfigureTLS(&vaultapi.TLSConfig{CACert: t.caFile()}); err != nil {
		return err
	}
	if t.vault, err = vaultapi.NewClient(c); err != nil {
		return err
	}
	t.vault.SetToken(t.facts.Token)
	t.vault.ClearNamespace()
	return t.await(ctx, vaultPatience, func() error {
		health, err := t.vault.Sys().HealthWithContext(ctx)
		if err == nil && health.Sealed {
			err = errors.New("Vault is sealed") //nolint:staticcheck // Vault is a name
		}
		return err
	})
}

func (t *tryout) caFile() string    { return filepath.Join(t.folder, "vault-ca.pem") }
func (t *tryout) samConfig() string { return filepath.Join(t.folder, "samconfig.toml") }
func (t *tryout) profiles() string  { return filepath.Join(t.folder, "profiles") }

// deploy takes the steps of docs/deploying.md.
func (t *tryout) deploy(ctx context.Context) bool {
	const forwards = "The other places forward their events (infra/member-account)"
	for _, step := range []struct {
		expected string
		run      func(context.Context) error
	}{
		{"The profiles have no findings (vault-ec2 lint)", func(ctx context.Context) error {
			if err := t.writeProfiles(); err != nil {
				return err
			}
			return t.ownCommand(ctx, "lint", t.profiles())
		}},
		{"sam deploy makes the stack", func(ctx context.Context) error { return t.samDeploy(ctx, nil) }},
		{forwards, t.makeMembers},
		{"vault-ec2 setup prepares Vault", t.setUp},
		{"vault-ec2 apply activates the profiles", func(ctx context.Context) error {
			return t.ownCommand(ctx, "apply", "--stack", t.o.Name, "--yes", t.profiles())
		}},
		{"vault-ec2 doctor finds nothing", t.doctor},
	} {
		if step.expected == forwards && len(t.places) == 1 {
			t.j.skip(forwards, "no --second-region and no --member-profile")
			continue
		}
		since := time.Now()
		if !t.j.check(step.expected, since, step.run(ctx)) {
			return false
		}
	}
	return true
}

// writeProfiles writes a profile for each place: each has an IAM role of its own.
func (t *tryout) writeProfiles() error {
	names, err := fs.Glob(profileFiles, "profile/*")
	if err != nil {
		return err
	}
	for _, p := range t.places {
		role, err := p.stack.Output("InstanceRoleArn")
		if err != nil {
			return err
		}
		values := strings.NewReplacer(
			"<<Place>>", p.kind, "<<RoleARN>>", role, "<<VPC>>", p.stack.Outputs["NetworkId"], "<<BasePath>>", basePath, "<<IsHome>>", fmt.Sprint(p.kind == home),
		)
		folder := filepath.Join(t.profiles(), p.kind)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		for _, name := range names {
			content, err := profileFiles.ReadFile(name)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(folder, filepath.Base(name)), []byte(values.Replace(string(content))), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// parameters returns the deployment's parameters.
func (t *tryout) parameters() map[string]string {
	all := map[string]string{
		"VaultAddr": t.facts.Public, "VaultIAMServerId": serverID, "VaultCASecretArn": t.home().stack.Outputs["VaultCASecretArn"], "Profiles": "active",
	}
	if r := t.at(region); r != nil {
		all["ReconcileRegions"] = t.home().aws.Region + "," + r.aws.Region
	}
	if m := t.at(member); m != nil {
		all["MemberRoleName"], all["MemberAccountIds"] = t.memberRole(), m.account
		all["ReconcileAccounts"] = fmt.Sprintf("%s,%s:%s", t.home().account, m.account, m.aws.Region)
	}
	return all
}

func (t *tryout) memberRole() string { return t.o.Name + "-functions" }
func (t *tryout) vaultRole() string  { return t.o.Name + "-vault" }

// samDeploy deploys the package with more parameters. Each call names all parameters, so that a former value does not stay.
func (t *tryout) samDeploy(ctx context.Context, more map[string]string) error {
	bucket, err := t.home().stack.Output("BucketName")
	if err != nil {
		return err
	}
	parameters := t.parameters()
	maps.Copy(parameters, more)
	args := []string{
		// A samconfig.toml in the folder is another deployment's.
		"deploy", "--config-file", t.samConfig(), "--template-file", "template.yaml", "--stack-name", t.o.Name, "--s3-bucket", bucket, "--capabilities", "CAPABILITY_IAM",
		"--no-confirm-changeset", "--no-fail-on-empty-changeset", "--no-progressbar", "--region", t.home().aws.Region,
		"--tags", tagKey + "=" + t.o.Name, "--parameter-overrides",
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		// The SAM CLI splits an unquoted value at its blanks, and takes no empty one.
		args = append(args, fmt.Sprintf(`%s="%s"`, name, parameters[name]))
	}
	if err := os.WriteFile(t.samConfig(), []byte("version = 0.1\n"), 0o600); err != nil {
		return err
	}
	t.j.doing("sam %s", strings.Join(args, " "))
	return t.command(ctx, command{limit: deployPatience, program: "sam", env: []string{"SAM_CLI_TELEMETRY=0"}}, args...)
}

// functionRoles returns the roles of the functions, for the member template.
func functionRoles(central deployed.Stack) string {
	out := central.Outputs
	return strings.Join([]string{out["ProvisionFunctionRoleArn"], out["DeprovisionFunctionRoleArn"], out["ReconcileFunctionRoleArn"]}, ",")
}

// makeMembers makes what the accounts page asks of another region and of another account.
func (t *tryout) makeMembers(ctx context.Context) error {
	central, err := deployed.FindStack(ctx, t.home().aws, t.o.Name)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(t.o.Package, "infra", "member-account", "template.yaml"))
	if err != nil {
		return err
	}
	for _, p := range t.places[1:] {
		parameters := map[string]string{"CentralEventBusArn": central.Outputs["EventBusArn"], "ExternalId": t.o.Name, "FunctionRoleArns": functionRoles(central)}
		if p.kind == member {
			parameters["VaultPrincipalArns"], parameters["RolesRegion"] = t.home().stack.Outputs["VaultRoleArn"], p.aws.Region
			parameters["MemberRoleName"], parameters["VaultRoleName"] = t.memberRole(), t.vaultRole()
		}
		if _, err := t.makeStack(ctx, p.aws, stackInput{name: t.memberStack(), template: string(text), parameters: parameters}); err != nil {
			return err
		}
	}
	return nil
}

// renewMember sets the functions' new roles in the member account, if there is one.
func (t *tryout) renewMember(ctx context.Context) error {
	m := t.at(member)
	if m == nil {
		return nil
	}
	central, err := deployed.FindStack(ctx, t.home().aws, t.o.Name)
	if err != nil {
		return err
	}
	return t.changeStack(ctx, m.aws, t.memberStack(), map[string]string{"FunctionRoleArns": functionRoles(central)})
}

func (t *tryout) setUp(ctx context.Context) error {
	results := basePath + "/results"
	mounts, err := t.vault.Sys().ListMountsWithContext(ctx)
	if err != nil {
		return fmt.Errorf("listing Vault's mounts: %w", err)
	}
	if mounts[results+"/"] == nil {
		if err := t.vault.Sys().MountWithContext(ctx, results, &vaultapi.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}); err != nil {
			return fmt.Errorf("mounting %s: %w", results, err)
		}
	}
	args := []string{"setup", "--stack", t.o.Name, "--templates-dir", t.profiles(), "--pki"}
	if m := t.at(member); m != nil {
		args = append(args, "--sts-role", fmt.Sprintf("%s=arn:%s:iam::%s:role/%s", m.account, partition(t.home()), m.account, t.vaultRole()), "--sts-external-id", t.o.Name)
	}
	return t.ownCommand(ctx, append(args, t.o.SetupArgs...)...)
}

// partition returns the partition of a place: aws, aws-cn or aws-us-gov.
func partition(p *place) string {
	return strings.SplitN(p.stack.Outputs["InstanceRoleArn"]+"::", ":", 3)[1]
}

func (t *tryout) doctor(ctx context.Context) error {
	return t.ownCommand(ctx, "doctor", "--stack", t.o.Name)
}

// ownCommand runs another command of this program.
func (t *tryout) ownCommand(ctx context.Context, args ...string) error {
	t.j.doing("vault-ec2 %s", strings.Join(args, " "))
	return t.quietly(ctx, args...)
}

// quietly is ownCommand without a line of its own.
func (t *tryout) quietly(ctx context.Context, args ...string) error {
	return t.command(ctx, command{limit: commandTimeout, program: t.o.Command, env: []string{
		"VAULT_ADDR=" + t.facts.Public, "VAULT_TOKEN=" + t.facts.Token, "VAULT_CACERT=" + t.caFile(), "VAULT_NAMESPACE=",
	}}, args...)
}

// command is a program to run.
type command struct {
	limit   time.Duration
	program string
	env     []string // besides this process's own
}

// command runs a program in the package's folder. An error has the last lines of its output.
func (t *tryout) command(ctx context.Context, c command, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Dir, cmd.WaitDelay, cmd.Env = t.o.Package, 10*time.Second, append(os.Environ(), c.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(c.program), args[0], err, lastLines(string(out), 15))
	}
	return nil
}

// lastLines returns the last lines of a text.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
