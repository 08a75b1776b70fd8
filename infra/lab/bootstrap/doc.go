// Package bootstrap holds the tests of what prepares Vault: that the Terraform module of infra/vault writes what the
// command writes, and that the policy the command prints is the least that it works with. They run a real Vault.
package bootstrap
