package tryout

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
)

// The places of a tryout.
const (
	home   = "home"
	region = "region"
	member = "member"
)

// place is an account and a region with a network for instances.
type place struct {
	kind    string
	account string
	aws     aws.Config
	stack   deployed.Stack // of aws/place.yaml
}

// String returns the place as the report names it.
func (p *place) String() string {
	return fmt.Sprintf("%s (account %s, %s)", p.kind, p.account, p.aws.Region)
}

const (
	callTimeout   = time.Minute
	stackPatience = 20 * time.Minute
	vaultPatience = 10 * time.Minute
)

//go:embed aws/place.yaml
var placeTemplate string

//go:embed aws/groups.yaml
var groupsTemplate string

//go:embed host/vault.sh
var vaultScript string

// inserted returns a template with a text in place of a word: CloudFormation's parameters hold 4,096 characters, too few for a script.
func inserted(template, word, value string) string {
	quoted, _ := json.Marshal(value) // a string cannot fail; a JSON string is a YAML one too
	return strings.Replace(template, word, string(quoted), 1)
}

// stackInput is a stack to make.
type stackInput struct {
	name, template string
	parameters     map[string]string
	tags           []types.Tag // besides the run's
}

// makeStack makes a stack with the tryout's tag and waits for it. An error names the first resource that failed.
func (t *tryout) makeStack(ctx context.Context, c aws.Config, in stackInput) (deployed.Stack, error) {
	ctx, cancel := context.WithTimeout(ctx, stackPatience)
	defer cancel()
	client := cloudformation.NewFromConfig(c)
	create := &cloudformation.CreateStackInput{
		StackName: &in.name, TemplateBody: &in.template, Tags: append([]types.Tag{{Key: aws.String(tagKey), Value: &t.o.Name}}, in.tags...),
		Capabilities: []types.Capability{types.CapabilityCapabilityIam, types.CapabilityCapabilityNamedIam},
	}
	create.Parameters = list(in.parameters)
	if _, err := client.CreateStack(ctx, create); err != nil {
		return deployed.Stack{}, fmt.Errorf("creating stack %s in region %s: %w", in.name, c.Region, err)
	}
	if err := t.awaitStack(ctx, c, in.name, types.StackStatusCreateComplete); err != nil {
		return deployed.Stack{}, err
	}
	return deployed.FindStack(ctx, c, in.name)
}

// list returns parameters as CloudFormation takes them.
func list(parameters map[string]string) []types.Parameter {
	var all []types.Parameter
	for name, value := range parameters {
		all = append(all, types.Parameter{ParameterKey: aws.String(name), ParameterValue: aws.String(value)})
	}
	return all
}

// changeStack changes parameters of a stack and waits for it.
func (t *tryout) changeStack(ctx context.Context, c aws.Config, name string, parameters map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, stackPatience)
	defer cancel()
	now, err := deployed.FindStack(ctx, c, name)
	if err != nil {
		return err
	}
	client := cloudformation.NewFromConfig(c)
	change := &cloudformation.UpdateStackInput{
		StackName: &name, UsePreviousTemplate: aws.Bool(true), Capabilities: []types.Capability{types.CapabilityCapabilityNamedIam},
	}
	values := maps.Clone(now.Parameters)
	maps.Copy(values, parameters)
	change.Parameters = list(values)
	if _, err := client.UpdateStack(ctx, change); err != nil {
		return fmt.Errorf("updating stack %s in region %s: %w", name, c.Region, err)
	}
	return t.awaitStack(ctx, c, name, types.StackStatusUpdateComplete)
}

// awaitStack waits until a stack, by name or ID, has a status, and fails at once if it ends in another. The SDK's waiters and paginators
// take a client as an interface, which keeps all of its methods in the program (docs/decisions/binary-size.md).
func (t *tryout) awaitStack(ctx context.Context, c aws.Config, stack string, want types.StackStatus) error {
	var now deployed.Stack
	err := t.await(ctx, stackPatience, func() (err error) {
		if now, err = deployed.FindStack(ctx, c, stack); err != nil {
			return err
		}
		status := types.StackStatus(now.Status)
		isFormer := want != types.StackStatusCreateComplete && status == types.StackStatusCreateComplete ||
			want == types.StackStatusDeleteComplete && status == types.StackStatusUpdateComplete
		if strings.HasSuffix(now.Status, "_IN_PROGRESS") || isFormer {
			return fmt.Errorf("stack %s in region %s is still %s", stack, c.Region, status)
		}
		return nil
	})
	if err == nil && now.Status != string(want) {
		err = fmt.Errorf("stack %s in region %s is %s, want %s%s", stack, c.Region, now.Status, want, firstFailure(ctx, cloudformation.NewFromConfig(c), stack))
	}
	return err
}

// firstFailure returns CloudFormation's reason for the first failure of a stack's last change, or nothing if it is not known.
func firstFailure(ctx context.Context, client *cloudformation.Client, name string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	answer, err := client.DescribeStackEvents(ctx, &cloudformation.DescribeStackEventsInput{StackName: &name})
	if err != nil {
		return ""
	}
	reason := ""
	for _, e := range answer.StackEvents { // the latest first
		isStart := aws.ToString(e.LogicalResourceId) == name && strings.HasSuffix(string(e.ResourceStatus), "_IN_PROGRESS") && !strings.Contains(string(e.ResourceStatus), "ROLLBACK")
		if isStart {
			break
		}
		if strings.HasSuffix(string(e.ResourceStatus), "_FAILED") {
			reason = fmt.Sprintf("; %s: %s", aws.ToString(e.LogicalResourceId), aws.ToString(e.ResourceStatusReason))
		}
	}
	return reason
}

// placesTag is the tag of the home place's stack that names the run's other places.
const placesTag = "vault-ec2-tryout-places"

// otherPlaces returns the places besides the home one, as account/region.
func (t *tryout) otherPlaces() string {
	var all []string
	for _, p := range t.places[1:] {
		all = append(all, p.account+"/"+p.aws.Region)
	}
	return cmp.Or(strings.Join(all, " "), "none")
}

// wantSamePlaces fails if an earlier run also worked in other places than this one.
func (t *tryout) wantSamePlaces(ctx context.Context) error {
	found, _, err := t.find(ctx, t.home(), t.placeStack())
	if places := found.Tags[placesTag]; err == nil && places != "" && places != t.otherPlaces() {
		return fmt.Errorf("the earlier run worked in these other places too: %s. Name its --second-region and --member-profile", places)
	}
	return err
}

// makePlace makes a place's network and, at home, Vault's instance.
func (t *tryout) makePlace(ctx context.Context, p *place) error {
	var err error
	var tags []types.Tag
	if p.kind == home { // for a removal after a kill
		tags = []types.Tag{{Key: aws.String(placesTag), Value: aws.String(t.otherPlaces())}}
	}
	p.stack, err = t.makeStack(ctx, p.aws, stackInput{
		tags: tags,
		name: t.placeStack(), template: inserted(placeTemplate, "VAULT_SCRIPT", vaultScript),
		parameters: map[string]string{
			"WithVault": fmt.Sprint(p.kind == home), "VaultVersion": t.o.VaultVersion, "VaultMemberRoleName": t.vaultRole(),
			"Number": strconv.Itoa(213 + slices.Index(t.places, p)),
		},
	})
	return err
}

// vaultFacts is what Vault's instance says of itself.
type vaultFacts struct {
	Token, Public, Private, IPv6 string // IPv6 and Private are addresses in the home place's network
	CA                           string `json:"-"`
}

// awaitVault waits until Vault's instance has written its facts.
func (t *tryout) awaitVault(ctx context.Context, p *place) (vaultFacts, error) {
	client := secretsmanager.NewFromConfig(p.aws)
	read := func(output string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		arn, err := p.stack.Output(output)
		if err != nil {
			return "", err
		}
		secret, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &arn})
		if err != nil {
			return "", fmt.Errorf("reading secret %s, where Vault's instance writes: %w", arn, err)
		}
		return aws.ToString(secret.SecretString), nil
	}
	var f vaultFacts
	err := t.await(ctx, vaultPatience, func() error {
		facts, err := read("VaultRootTokenSecretArn")
		if err != nil {
			return err
		}
		if !strings.HasPrefix(facts, "{") {
			return errors.New("Vault's instance has not said that Vault is ready: see its output by aws ec2 get-console-output") //nolint:staticcheck // Vault is a name
		}
		if err := json.Unmarshal([]byte(facts), &f); err != nil {
			return errors.New("the facts that Vault's instance wrote are not JSON")
		}
		f.CA, err = read("VaultCASecretArn")
		return err
	})
	return f, err
}
