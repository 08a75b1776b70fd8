package dashboard

import (
	"context"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
)

// OfTemplate returns the dashboard of a template as a first deployment makes it. python is the interpreter, which must have the SAM
// translator.
func OfTemplate(ctx context.Context, python, template string) (Dashboard, error) {
	const region = "us-east-1"
	expanded, err := stack.Expand(ctx, python, template, region)
	if err != nil {
		return Dashboard{}, err
	}
	resources, err := stack.Resolve(expanded, map[string]string{"VaultAddr": "https://vault.example:8200"}, map[string]string{
		"AWS::Region": region, "AWS::AccountId": parts.AccountID, "AWS::Partition": "aws",
	})
	if err != nil {
		return Dashboard{}, err
	}
	return Read(resources)
}
