// Package bootstrap tests the preparation of Vault: that the Terraform module infra/vault/terraform writes the same as vault-ec2 setup,
// and that the policy which the command prints is the smallest that it works with. The tests run a real Vault.
package bootstrap
