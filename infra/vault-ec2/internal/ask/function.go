package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// invokeLimit is longer than the function's invocation and its start.
const invokeLimit = reconcile.RunTime + time.Minute

// function is the deployed function.
type function struct {
	client *lambda.Client
	name   string
}

// newFunction returns the function with a client that never retries: an invocation with a lost answer has run already.
func newFunction(found deployed.Function) function {
	client := lambda.NewFromConfig(found.Config, func(o *lambda.Options) {
		o.Retryer = aws.NopRetryer{}
		if c, is := o.HTTPClient.(*awshttp.BuildableClient); is {
			o.HTTPClient = c.WithTimeout(invokeLimit)
		}
	})
	return function{client: client, name: found.Name}
}

// invoke returns the function's answer. A failure of the function is an error.
func (f function) invoke(ctx context.Context, in input) ([]byte, error) {
	payload, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("writing the input of function %s: %w", f.name, err)
	}
	out, err := f.client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &f.name, Payload: payload})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("waiting for the answer of function %s: %w; the function itself continues to its end", f.name, ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("invoking function %s (does it exist, may you invoke it, and does the server at its endpoint still run?): %w", f.name, err)
	case out.FunctionError != nil:
		return nil, fmt.Errorf("function %s failed: %s; see its log", f.name, failure(out.Payload))
	}
	return out.Payload, nil
}

// failure returns the message of a function's error document, or the document itself if it has none.
func failure(payload []byte) string {
	var document struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal(payload, &document); err != nil || document.ErrorMessage == "" {
		return string(payload)
	}
	return document.ErrorMessage
}

// untilWhole invokes the function until its answer has no cursor, since a run that outlasts an invocation answers with one for the next. add
// takes each answer, and returns its cursor and what is printed if another invocation follows.
func (f function) untilWhole(ctx context.Context, in input, progress io.Writer, add func(n int, raw []byte) (cursor json.RawMessage, soFar string, err error)) error {
	for n := 1; ; n++ {
		raw, err := f.invoke(ctx, in)
		if err != nil {
			return err
		}
		cursor, soFar, err := add(n, raw)
		switch {
		case err != nil:
			return err
		case !isPartial(cursor):
			return nil
		case bytes.Equal(cursor, in.Cursor):
			return fmt.Errorf("function %s makes no progress: invocation %d ended where it began; see its log for the reason", f.name, n)
		}
		in.Cursor = cursor
		fmt.Fprintln(progress, soFar)
	}
}

// reconcile invokes the function until the run is over. It returns the answer of the whole run, also as JSON.
func (f function) reconcile(ctx context.Context, in input, progress io.Writer) (whole answer, raw []byte, err error) {
	err = f.untilWhole(ctx, in, progress, func(n int, part []byte) (json.RawMessage, string, error) {
		var a answer
		if err := json.Unmarshal(part, &a); err != nil {
			return nil, "", fmt.Errorf("reading the answer of function %s: %w", f.name, err)
		}
		raw, whole = part, whole.join(a)
		if n > 1 && !isPartial(a.Cursor) {
			if raw, err = json.Marshal(whole); err != nil {
				return nil, "", fmt.Errorf("writing the answer of %d invocations: %w", n, err)
			}
		}
		return a.Cursor, fmt.Sprintf("reconcile: the run outlasts invocation %d (%d records so far); continuing", n, a.Scanned.Records), nil
	})
	if err != nil {
		return answer{}, nil, err
	}
	return whole, raw, nil
}
