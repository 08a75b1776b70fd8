// Command provision gives a starting instance its own Vault identity. It is invoked with the EC2 state-change
// events of its queue, or with one event by hand.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/function"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/lifecycle"
)

func main() {
	handler, err := function.New(context.Background(), "provision", lifecycle.Duties{Make: true}, os.Getenv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "the provision function cannot start: %v\n", err)
		os.Exit(1)
	}
	lambda.Start(handler)
}
