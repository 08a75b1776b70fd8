// Package tryout tries the whole program in an AWS account without other use: it makes networks and a small Vault, deploys, launches a
// handful of instances of each kind, attacks, updates, tears down, removes everything, and writes what it saw into a report.
package tryout

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
)

// Options are the flags of the command.
type Options struct {
	Name          string // of the deployment; names of other stacks begin with it
	Package       string // folder of a release's package, or of a checkout with built functions
	SecondRegion  string // empty for none
	MemberProfile string // AWS profile of another account, in the home region; empty for none
	VaultVersion  string
	SetupArgs     []string // more arguments for vault-ec2 setup
	Report        string   // file
	Confirm       string   // the account's ID in place of a prompt
	Remove        bool     // only remove what an earlier run left
	Patience      time.Duration
	Command       string // the file of this program
	In            io.Reader
	Out           io.Writer
}

// tagKey is the tag of everything that the tryout makes. Its value is the run's name.
const tagKey = "vault-ec2-tryout"

const (
	basePath     = "tryout"
	serverID     = "vault.tryout"
	pollEvery    = 2 * time.Second
	removeLimit  = 90 * time.Minute
	maxName      = 20 // so that the longest name that CloudFormation generates from it fits
	memberSuffix = "-member"
)

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// tryout is one run.
type tryout struct {
	o      Options
	j      *journal
	places []*place // the home place first
	began  time.Time

	facts  vaultFacts
	vault  *vaultapi.Client // with the root token
	folder string           // profiles, and Vault's CA, of this run
	peer   *host            // the first instance, which the others attack
	hosts  []*host
}

func (t *tryout) home() *place { return t.places[0] }

func (t *tryout) placeStack() string  { return t.o.Name + "-place" }
func (t *tryout) groupsStack() string { return t.o.Name + "-groups" }
func (t *tryout) memberStack() string { return t.o.Name + memberSuffix }

// Run tries the program, or removes what an earlier run left. It reports whether every line that was tried is ok and everything is removed.
func Run(ctx context.Context, o Options) (isGood bool, err error) {
	if err := o.check(); err != nil {
		return false, err
	}
	t := &tryout{o: o, began: time.Now(), j: &journal{out: o.Out, now: time.Now}}
	if err := t.findPlaces(ctx); err != nil {
		return false, err
	}
	if err := t.ask(); err != nil {
		return false, err
	}
	if t.folder, err = os.MkdirTemp("", "vault-ec2-tryout-"); err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(t.folder) }() // temporary
	if o.Remove {
		if err := t.wantSamePlaces(ctx); err != nil {
			return false, err
		}
	} else {
		if err := t.wantNothing(ctx); err != nil {
			return false, err
		}
		t.try(ctx)
	}
	// What was made is removed even if the person gave up.
	removal, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
	defer cancel()
	t.remove(removal)
	fmt.Fprintf(o.Out, "\n%d ok, %d not ok, %d not tried\n", t.j.count(met), t.j.count(missed), t.j.count(notTried))
	if err := os.WriteFile(o.Report, []byte(t.report()), 0o600); err != nil {
		return false, fmt.Errorf("writing the report: %w", err)
	}
	fmt.Fprintf(o.Out, "The report is in %s\n", o.Report)
	return t.j.count(missed) == 0, nil
}

func (o *Options) check() error {
	if !nameForm.MatchString(o.Name) || len(o.Name) > maxName {
		return fmt.Errorf("the name %q must be lower-case letters, digits and hyphens, %d at most, and begin with a letter", o.Name, maxName)
	}
	if o.Remove {
		return nil
	}
	for _, file := range []string{"template.yaml", "infra/member-account/template.yaml", "build/provision/bootstrap"} {
		if _, err := os.Stat(filepath.Join(o.Package, filepath.FromSlash(file))); err != nil {
			return fmt.Errorf("%s has no %s: name the folder of an unpacked release with --package", o.Package, file)
		}
	}
	if _, err := exec.LookPath("sam"); err != nil {
		return fmt.Errorf("the run deploys with the SAM CLI: %w", err)
	}
	return nil
}

// findPlaces reads each place's account.
func (t *tryout) findPlaces(ctx context.Context) error {
	first, err := deployed.LoadConfig(ctx)
	if err != nil {
		return err
	}
	t.places = []*place{{kind: home, aws: first}}
	if t.o.SecondRegion != "" {
		second := first.Copy()
		second.Region = t.o.SecondRegion
		t.places = append(t.places, &place{kind: region, aws: second})
	}
	if t.o.MemberProfile != "" {
		c, err := config.LoadDefaultConfig(ctx, config.WithSharedConfigProfile(t.o.MemberProfile), config.WithRegion(first.Region))
		if err != nil {
			return fmt.Errorf("reading AWS profile %s: %w", t.o.MemberProfile, err)
		}
		t.places = append(t.places, &place{kind: member, aws: c})
	}
	for _, p := range t.places {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		who, err := sts.NewFromConfig(p.aws).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		cancel()
		if err != nil {
			return fmt.Errorf("asking STS for the account of the %s place: %w", p.kind, err)
		}
		p.account = aws.ToString(who.Account)
	}
	if m := t.at(member); m != nil && m.account == t.home().account {
		return fmt.Errorf("AWS profile %s is of the same account %s as the home place: name one of another account", t.o.MemberProfile, m.account)
	}
	if r := t.at(region); r != nil && r.aws.Region == t.home().aws.Region {
		return fmt.Errorf("the second region is the home place's own, %s: name another", r.aws.Region)
	}
	return nil
}

// at returns the place of a kind, or nil.
func (t *tryout) at(kind string) *place {
	for _, p := range t.places {
		if p.kind == kind {
			return p
		}
	}
	return nil
}

// ask says what the run makes and costs, and has a person type the account's ID.
func (t *tryout) ask() error {
	var where []string
	for _, p := range t.places {
		where = append(where, "  "+p.String())
	}
	says := costs
	if t.o.Remove {
		says = "This terminates the instances and deletes the stacks of an earlier run of this name, by their tag " + tagKey + "=" + t.o.Name + ", in\n\n"
	}
	fmt.Fprintf(t.o.Out, "%s%s\n\nType the account's ID (%s) to continue: ", says, strings.Join(where, "\n"), t.home().account)
	answer := t.o.Confirm
	if answer != "" {
		fmt.Fprintln(t.o.Out, answer)
	} else {
		answer, _ = bufio.NewReader(t.o.In).ReadString('\n') // an end without a line is no confirmation
	}
	if strings.TrimSpace(answer) != t.home().account {
		return errors.New("not confirmed: nothing was made or changed")
	}
	return nil
}

// costs are list prices in us-east-1 of 2025-11, for the two hours that a run with all places takes at most.
const costs = `This tries vault-ec2-provisioner in an account without other use. It makes and removes

  a Vault on a t4g.small with a public address, port 8200 open to the internet   0.05 USD
  about 20 t4g.nano and one t2.nano, a dozen at a time, and their disks          0.15 USD
  public addresses of the instances outside of the home place                    0.02 USD
  a KMS key, which KMS deletes after seven days more, without cost               0.01 USD
  the deployment: functions, queues, table, alarms, dashboard                    0.10 USD
  two secrets, a bucket with the functions, events and logs                      0.02 USD

so less than 1 USD, in 60 to 120 minutes. Other regions cost up to half as much again. Nothing is removed that it did not make. It works in

`

// wantNothing fails if an earlier run left something.
func (t *tryout) wantNothing(ctx context.Context) error {
	for _, p := range t.places {
		for _, name := range []string{t.placeStack(), t.groupsStack(), t.memberStack(), t.o.Name} {
			_, err := deployed.FindStack(ctx, p.aws, name)
			switch {
			case errors.Is(err, deployed.ErrNoStack):
			case err != nil:
				return err
			default:
				return fmt.Errorf("stack %s exists in %s: remove an earlier run with vault-ec2 tryout --remove --name %s, or choose another --name", name, p, t.o.Name)
			}
		}
	}
	return nil
}

// await calls look until it succeeds, and returns its last error after patience.
func (t *tryout) await(ctx context.Context, patience time.Duration, look func() error) error {
	deadline := time.Now().Add(min(patience, t.o.Patience))
	for {
		err := look()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; %w", context.Cause(ctx), err)
		case <-time.After(pollEvery):
		}
	}
}

// try runs the parts. A part that later ones need ends the run.
func (t *tryout) try(ctx context.Context) {
	for _, part := range []struct {
		name     string
		run      func(context.Context) bool
		isNeeded bool
	}{
		{"Networks, and a Vault", t.makePlaces, true},
		{"Deployment", t.deploy, true},
		{"Instances", t.launchKinds, true},
		{"Auto Scaling", t.groups, false},
		{"Attacks", t.judgeAttacks, false},
		{"Updates", t.updates, false},
		{"A member without the right to send events", t.silentMember, false},
		{"Ends", t.ends, false},
		{"Teardown", t.teardown, false},
	} {
		if ctx.Err() != nil {
			t.j.begin(part.name)
			t.j.skip(part.name, "interrupted")
			continue
		}
		t.j.begin(part.name)
		if isDone := part.run(ctx); !isDone && part.isNeeded {
			t.j.skip("The parts after this one", "they need it")
			return
		}
	}
}

// VaultVersion is the version of Vault that the tests of this project run on.
const VaultVersion = "1.21.4"
