package deployed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// LabFile is the file in which a running lab keeps its address and the name of its function, below the checkout's folder.
const LabFile = ".cache/lab.env"

// Choice names the reconcile function in one of three ways.
type Choice struct {
	Function string // its name or ARN
	Stack    string // the stack that has it
	Lab      string // the file of a running lab
}

// Function is the reconcile function, and the configuration for calls to it.
type Function struct {
	Name   string
	Config aws.Config

	settings profileSettings
}

// check returns an error unless exactly one way is chosen.
func (c Choice) check() error {
	chosen := 0
	for _, value := range []string{c.Function, c.Stack, c.Lab} {
		if value != "" {
			chosen++
		}
	}
	const ways = "--stack <name> for a deployed stack, --lab for the lab of make lab, or --function <name or ARN>, the stack's output ReconcileFunctionName"
	switch {
	case chosen == 0:
		return errors.New("no deployment is named: name one with " + ways)
	case chosen > 1:
		return errors.New("--stack, --lab and --function each name a deployment: use one of " + ways)
	}
	return nil
}

// Flag returns the flag that makes the choice, for a command to be copied.
func (c Choice) Flag() string {
	switch {
	case c.Stack != "":
		return "--stack " + c.Stack
	case c.Lab == LabFile:
		return "--lab"
	case c.Lab != "":
		return "--lab=" + c.Lab
	}
	return "--function " + c.Function
}

// Find returns the chosen function. It calls CloudFormation only for a stack.
func (c Choice) Find(ctx context.Context) (Function, error) {
	if err := c.check(); err != nil {
		return Function{}, err
	}
	if c.Lab != "" {
		return inLab(c.Lab)
	}
	of, err := LoadConfig(ctx)
	if err != nil {
		return Function{}, err
	}
	if c.Stack == "" {
		return Function{Name: c.Function, Config: of}, nil
	}
	s, err := FindStack(ctx, of, c.Stack)
	if err != nil {
		return Function{}, err
	}
	name, err := s.Output("ReconcileFunctionName")
	return Function{Name: name, Config: of, settings: s.profileSettings()}, err
}

// inLab returns the function that the file of a running lab names. Nothing but the file counts: a developer's own AWS settings are for
// other accounts.
func inLab(file string) (Function, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Function{}, fmt.Errorf("no lab is running (there is no file %s): start one with make lab, or name a deployed stack with --stack <name>", file)
	}
	if err != nil {
		return Function{}, fmt.Errorf("reading the lab's address: %w", err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[key] = value
		}
	}
	for _, key := range []string{"RECONCILE_FUNCTION", "AWS_REGION", "AWS_ENDPOINT_URL_LAMBDA", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		if values[key] == "" {
			return Function{}, fmt.Errorf("%s has no %s: is it the file of a lab? make lab writes %s", file, key, LabFile)
		}
	}
	return Function{
		Name: values["RECONCILE_FUNCTION"],
		Config: aws.Config{
			Region: values["AWS_REGION"], BaseEndpoint: aws.String(values["AWS_ENDPOINT_URL_LAMBDA"]), HTTPClient: awshttp.NewBuildableClient(),
			Credentials: credentials.NewStaticCredentialsProvider(values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"], values["AWS_SESSION_TOKEN"]),
		},
		settings: profileSettings{
			table: values["TABLE_NAME"], endpoint: values["AWS_ENDPOINT_URL_DYNAMODB"], profiles: values["PROFILES"], caller: "the lab's operator",
		},
	}, nil
}
