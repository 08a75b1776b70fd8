package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// deployLimit bounds a whole deployment; moto needs well under a second.
const deployLimit = 60 * time.Second

// Options configure a deployment.
type Options struct {
	Name       string            // the stack's name
	Expanded   map[string]any    // from Expand
	Parameters map[string]string // values for the template's parameters
	Tags       map[string]string
	BuildDir   string // holds <function>/bootstrap
	AccountID  string
	AWS        aws.Config       // moto
	Dynamo     *dynamodb.Client // DynamoDB Local
}

// Stack is a deployed stack. Maps are keyed by the template's logical IDs.
type Stack struct {
	Name      string
	Functions map[string]Function
	Mappings  []Mapping
	Schedules []Schedule
	Tables    map[string]string // physical names; they exist in DynamoDB Local
	Resources map[string]string // physical IDs of the resources that moto made
	Outputs   map[string]string
	Expanded  map[string]any // the template before the lab adapted it to moto
	Deployed  map[string]any // the template as sent to moto
}

// Function is a Lambda function as deployed.
type Function struct {
	Name           string // physical name
	ARN            string
	Env            map[string]string // resolved
	TimeoutSeconds int
	MemoryMB       int
	RoleARN        string
	CodeDir        string // folder of the bootstrap binary
}

// Mapping is an event source mapping from a queue to a function.
type Mapping struct {
	FunctionLogicalID, QueueLogicalID string
	QueueURL, QueueARN                string
	BatchSize                         int
	Window                            time.Duration
	ReportBatchItemFailures           bool
	MaximumConcurrency                int // 0: not set
}

// Schedule is a rule that invokes a function by the clock. It exists in moto as deployed and never fires there.
type Schedule struct {
	RuleLogicalID, FunctionLogicalID string
	RuleName                         string
	Expression                       string
	Input                            string // the payload; empty: a scheduled event
}

// Deploy adapts the expanded template to moto, creates the stack and its tables,
// and returns the stack's functions, queues and outputs.
func Deploy(ctx context.Context, o Options) (*Stack, error) {
	s, err := apply(ctx, o, func(ctx context.Context, _ *Stack, change *cloudformation.CreateStackInput) error {
		_, err := cloudformation.NewFromConfig(o.AWS).CreateStack(ctx, change)
		return err
	})
	if err == nil {
		err = s.makeTables(ctx, o.Dynamo)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Update changes the functions' variables of a deployed stack to those of other parameters, and returns the stack as it is then. moto
// cannot change a table and other resources, so they stay as they are.
func (s *Stack) Update(ctx context.Context, o Options) (*Stack, error) {
	changed, err := apply(ctx, o, func(ctx context.Context, now *Stack, change *cloudformation.CreateStackInput) error {
		template := maps.Clone(s.Deployed)
		resources := maps.Clone(object(template["Resources"]))
		for id, properties := range now.ofType("AWS::Lambda::Function") {
			resource := maps.Clone(object(resources[id]))
			function := maps.Clone(object(resource["Properties"]))
			function["Environment"] = properties["Environment"]
			resource["Properties"], resources[id] = function, resource
		}
		template["Resources"], now.Deployed = resources, template
		body, err := json.Marshal(template)
		if err != nil {
			return err
		}
		_, err = cloudformation.NewFromConfig(o.AWS).UpdateStack(ctx, &cloudformation.UpdateStackInput{
			StackName: change.StackName, TemplateBody: aws.String(string(body)), Parameters: change.Parameters, Capabilities: change.Capabilities,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	changed.Tables = s.Tables
	return changed, nil
}

// apply has moto make or change a stack, and reads it.
func apply(ctx context.Context, o Options, call func(context.Context, *Stack, *cloudformation.CreateStackInput) error) (*Stack, error) {
	ctx, cancel := context.WithTimeout(ctx, deployLimit)
	defer cancel()
	d, err := newDecider(o.Expanded, o.Parameters, map[string]string{
		"AWS::Region": o.AWS.Region, "AWS::AccountId": o.AccountID, "AWS::StackName": o.Name,
		"AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com",
	})
	if err != nil {
		return nil, fmt.Errorf("reading the parameters of stack %s: %w", o.Name, err)
	}
	p, err := prepare(o.Expanded, d)
	if err != nil {
		return nil, fmt.Errorf("preparing stack %s for moto: %w", o.Name, err)
	}
	s := &Stack{
		Name: o.Name, Functions: map[string]Function{}, Tables: map[string]string{},
		Resources: map[string]string{}, Outputs: map[string]string{}, Expanded: o.Expanded, Deployed: p.template,
	}
	if err := s.apply(ctx, o, call); err != nil {
		return nil, err
	}
	if err := s.readFunctions(ctx, o); err != nil {
		return nil, err
	}
	if err := s.readMappings(ctx, o, p); err != nil {
		return nil, err
	}
	if err := s.readSchedules(ctx, o); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Stack) apply(ctx context.Context, o Options, call func(context.Context, *Stack, *cloudformation.CreateStackInput) error) error {
	body, err := json.Marshal(s.Deployed)
	if err != nil {
		return fmt.Errorf("writing the template of stack %s: %w", o.Name, err)
	}
	in := &cloudformation.CreateStackInput{
		StackName: &o.Name, TemplateBody: aws.String(string(body)),
		Capabilities: []cfntypes.Capability{cfntypes.CapabilityCapabilityIam, cfntypes.CapabilityCapabilityNamedIam},
	}
	for name, value := range o.Parameters {
		in.Parameters = append(in.Parameters, cfntypes.Parameter{ParameterKey: aws.String(name), ParameterValue: aws.String(value)})
	}
	for key, value := range o.Tags {
		in.Tags = append(in.Tags, cfntypes.Tag{Key: aws.String(key), Value: aws.String(value)})
	}
	if err := call(ctx, s, in); err != nil {
		return fmt.Errorf("deploying stack %s in moto: %w", o.Name, err)
	}
	client := cloudformation.NewFromConfig(o.AWS)
	stacks, err := client.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &o.Name})
	if err != nil {
		return fmt.Errorf("describing stack %s: %w", o.Name, err)
	}
	isDone := len(stacks.Stacks) == 1 && (stacks.Stacks[0].StackStatus == cfntypes.StackStatusCreateComplete || stacks.Stacks[0].StackStatus == cfntypes.StackStatusUpdateComplete)
	if !isDone {
		return fmt.Errorf("deploying stack %s: moto answered %+v, expected one complete stack", o.Name, stacks.Stacks)
	}
	for _, output := range stacks.Stacks[0].Outputs {
		s.Outputs[aws.ToString(output.OutputKey)] = aws.ToString(output.OutputValue)
	}
	resources, err := client.DescribeStackResources(ctx, &cloudformation.DescribeStackResourcesInput{StackName: &o.Name})
	if err != nil {
		return fmt.Errorf("describing the resources of stack %s: %w", o.Name, err)
	}
	for _, r := range resources.StackResources {
		// moto lists unsupported resources without a physical ID.
		if id := aws.ToString(r.PhysicalResourceId); id != "" {
			s.Resources[aws.ToString(r.LogicalResourceId)] = id
		}
	}
	return nil
}

func (s *Stack) readFunctions(ctx context.Context, o Options) error {
	client := lambda.NewFromConfig(o.AWS)
	for id := range s.ofType("AWS::Lambda::Function") {
		name := s.Resources[id]
		out, err := client.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &name})
		if err != nil {
			return fmt.Errorf("reading the configuration of function %s (%s): %w", id, name, err)
		}
		f := Function{
			Name: name, ARN: aws.ToString(out.FunctionArn), Env: map[string]string{},
			TimeoutSeconds: int(cmp.Or(aws.ToInt32(out.Timeout), 3)), MemoryMB: int(cmp.Or(aws.ToInt32(out.MemorySize), 128)),
			RoleARN: aws.ToString(out.Role),
			CodeDir: filepath.Join(o.BuildDir, strings.ToLower(strings.TrimSuffix(id, "Function"))),
		}
		if out.Environment != nil {
			f.Env = out.Environment.Variables
		}
		s.Functions[id] = f
	}
	return nil
}

func (s *Stack) readMappings(ctx context.Context, o Options, p *prepared) error {
	client := sqs.NewFromConfig(o.AWS)
	for id, properties := range p.mappings {
		function, ok := LogicalID(properties["FunctionName"])
		queue, ok2 := LogicalID(properties["EventSourceArn"])
		if !ok || !ok2 {
			return fmt.Errorf("reading mapping %s: FunctionName and EventSourceArn must refer to resources of the template", id)
		}
		url := s.Resources[queue]
		out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameQueueArn}})
		if err != nil {
			return fmt.Errorf("reading the ARN of queue %s for mapping %s: %w", queue, id, err)
		}
		responseTypes, _ := properties["FunctionResponseTypes"].([]any)
		s.Mappings = append(s.Mappings, Mapping{
			FunctionLogicalID: function, QueueLogicalID: queue, QueueURL: url, QueueARN: out.Attributes["QueueArn"],
			BatchSize:               cmp.Or(number(properties["BatchSize"]), 10),
			Window:                  time.Duration(number(properties["MaximumBatchingWindowInSeconds"])) * time.Second,
			ReportBatchItemFailures: slices.Contains(responseTypes, any("ReportBatchItemFailures")),
			MaximumConcurrency:      number(object(properties["ScalingConfig"])["MaximumConcurrency"]),
		})
	}
	slices.SortFunc(s.Mappings, func(a, b Mapping) int { return cmp.Compare(a.FunctionLogicalID, b.FunctionLogicalID) })
	return nil
}

// ofType returns the properties of the deployed resources of one type.
func (s *Stack) ofType(kind string) map[string]map[string]any {
	found := map[string]map[string]any{}
	for id, r := range object(s.Deployed["Resources"]) {
		if object(r)["Type"] == kind {
			found[id] = object(object(r)["Properties"])
		}
	}
	return found
}

// Mapping returns the mapping that feeds a function.
func (s *Stack) Mapping(functionLogicalID string) (Mapping, error) {
	for _, m := range s.Mappings {
		if m.FunctionLogicalID == functionLogicalID {
			return m, nil
		}
	}
	return Mapping{}, fmt.Errorf("looking for the queue of function %s: %w", functionLogicalID, errNoMapping)
}

var errNoMapping = errors.New("no queue feeds it in the template")

// number returns a JSON number, or 0 for any other value.
func number(v any) int {
	n, _ := v.(float64)
	return int(n)
}
