// Command misbehaving fails in the way that its event names.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct{ Do, Text string }

func main() {
	if os.Getenv("BREAK_INIT") != "" {
		fmt.Println("the init phase fails")
		os.Exit(4)
	}
	lambda.StartWithOptions(handle, lambda.WithEnableSIGTERM(func() { fmt.Println("received SIGTERM") }))
}

func handle(ctx context.Context, e event) (map[string]any, error) {
	fmt.Println("doing", e.Do)
	switch e.Do {
	case "fail":
		return nil, errors.New(e.Text)
	case "panic":
		panic(e.Text)
	case "exit":
		os.Exit(3)
	case "hang":
		time.Sleep(time.Hour)
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	case "nap":
		time.Sleep(300 * time.Millisecond)
	}
	lc, _ := lambdacontext.FromContext(ctx)
	deadline, _ := ctx.Deadline()
	return map[string]any{
		"pid": os.Getpid(), "text": e.Text, "arn": lc.InvokedFunctionArn, "request": lc.AwsRequestID,
		"left": time.Until(deadline).Seconds(), "home": os.Getenv("HOME"), "greeting": os.Getenv("GREETING"),
	}, nil
}
