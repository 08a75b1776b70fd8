// Package soak launches and terminates many instances for a while, with faults in all services that the functions call,
// and then checks that Vault, the ledger and EC2 agree.
package soak
