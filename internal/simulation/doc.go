// Package simulation tests converge and reconcile through millions of steps in a world in memory. Every call can fail, lose its
// answer, be the last of its process, freeze the process past its lease, or be interrupted by another run. Every effect is
// checked against rules that must always hold. The package has no code of the program.
//
// infra/lab tests what Vault, DynamoDB and EC2 really do; the subjects here are order, time and faults. RELIABILITY.md names the
// tests of each promise.
package simulation
