// Package bootstrap tests the preparation of Vault: that the Terraform module of infra/vault writes the same as the command,
// and that the policy which the command prints is the smallest that it works with. The tests run a real Vault.
package bootstrap
