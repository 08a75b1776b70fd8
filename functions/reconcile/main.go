// Command reconcile compares the whole fleet, EC2 with the ledger and with Vault, and repairs what differs. It is
// invoked by its schedule, by its own queue, or by hand.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/function"
)

func main() {
	handler, err := function.NewReconcile(context.Background(), os.Getenv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "the reconcile function cannot start: %v\n", err)
		os.Exit(1)
	}
	lambda.Start(handler)
}
