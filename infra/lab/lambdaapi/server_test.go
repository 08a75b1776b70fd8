package lambdaapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
)

// served starts a real function behind the API and returns the SDK's client for it.
func served(t *testing.T) *lambda.Client {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "bootstrap")
	build := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", binary, "../internal/testfunctions/misbehaving")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f := sandbox.NewFunction(sandbox.Options{
		Name: "tried", Binary: binary, Timeout: 20 * time.Second, Log: filepath.Join(t.TempDir(), "function.log"),
	}, 2)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := Start(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	c := awsclient.Config(s.URL, "us-east-1")
	c.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return lambda.NewFromConfig(c)
}

func TestServer_ServesLambdasOwnClient(t *testing.T) {
	client := served(t)
	invoke := func(name, event string) (*lambda.InvokeOutput, error) {
		return client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name, Payload: []byte(event)})
	}

	for _, name := range []string{"tried", "tried:$LATEST", "123456789012:function:tried", "arn:aws:lambda:us-east-1:123456789012:function:tried"} {
		out, err := invoke(name, `{"Do":"answer","Text":"one"}`)
		if err != nil || out.FunctionError != nil || out.StatusCode != http.StatusOK || aws.ToString(out.ExecutedVersion) != "$LATEST" {
			t.Fatalf("%s: %+v, %v", name, out, err)
		}
		var answer struct{ Text string }
		if err := json.Unmarshal(out.Payload, &answer); err != nil || answer.Text != "one" {
			t.Errorf("%s answered %s (%v)", name, out.Payload, err)
		}
	}
	if out, err := invoke("tried", ""); err != nil || out.FunctionError != nil {
		t.Errorf("no event should be an empty event: %+v, %v", out, err)
	}
	for _, do := range []string{"fail", "exit"} {
		out, err := invoke("tried", `{"Do":"`+do+`","Text":"no luck"}`)
		if err != nil || aws.ToString(out.FunctionError) != "Unhandled" || !strings.Contains(string(out.Payload), "errorMessage") {
			t.Errorf("a function's %s is an answer marked as unhandled, got %+v with %s, %v", do, out, out.Payload, err)
		}
	}
	var missing *types.ResourceNotFoundException
	if _, err := invoke("unheard-of", "{}"); !errors.As(err, &missing) {
		t.Errorf("an unknown function: got %v", err)
	}
	var invalid *types.InvalidRequestContentException
	if _, err := invoke("tried", "{"); !errors.As(err, &invalid) {
		t.Errorf("an event that is no JSON: got %v", err)
	}
	var unsupported *types.InvalidParameterValueException
	_, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("tried"), InvocationType: types.InvocationTypeEvent})
	if !errors.As(err, &unsupported) {
		t.Errorf("an invocation type the lab does not have: got %v", err)
	}
}
