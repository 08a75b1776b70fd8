// Package tryout holds the test of vault-ec2 tryout in the lab: moto in place of an account, the built functions, a real Vault, and each
// launched instance's own script, which logs in as its instance.
package tryout
