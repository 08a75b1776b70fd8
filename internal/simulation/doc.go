// Package simulation holds no code of the program, only tests of it that need millions of steps: the real lifecycle and
// reconcile on a world in memory whose every call can fail, lose its answer, be the process's last, freeze it past its
// lease or be interrupted by anything else, and whose every effect is held against what must hold always.
//
// What Vault, DynamoDB and EC2 really do is tested in infra/lab; here it is order, time and faults. RELIABILITY.md says
// which promise stands on which test.
package simulation
