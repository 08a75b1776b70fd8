// Command reconcile compares the whole fleet in EC2 with the ledger and with Vault, and repairs the drift. Its schedule,
// its own queue or an operator invokes it.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/wiring"
)

func main() {
	handler, err := wiring.NewReconcile(context.Background(), os.Getenv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "the reconcile function cannot start: %v\n", err)
		os.Exit(1)
	}
	lambda.Start(handler)
}
