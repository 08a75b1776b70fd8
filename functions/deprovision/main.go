// Command deprovision removes a terminated instance's Vault identity and cuts its live tokens. Lambda invokes it with the
// events of its queue, an operator with one event by hand.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/wiring"
)

func main() {
	handler, err := wiring.New(context.Background(), "deprovision", converge.Duties{Remove: true}, os.Getenv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "the deprovision function cannot start: %v\n", err)
		os.Exit(1)
	}
	lambda.Start(handler)
}
