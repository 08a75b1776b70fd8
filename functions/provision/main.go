// Command provision creates a starting instance's own Vault identity. Lambda invokes it with the events of its queue,
// an operator with one event by hand.
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
	handler, err := wiring.New(context.Background(), "provision", converge.Duties{Make: true}, os.Getenv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "the provision function cannot start: %v\n", err)
		os.Exit(1)
	}
	lambda.Start(handler)
}
