// Package soak lets many instances come and go for a while, with faults in everything the functions call, and then wants
// Vault, the ledger and EC2 to agree.
package soak
