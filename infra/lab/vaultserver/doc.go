// Package vaultserver finds or builds a `vault` program and runs it as a server: one node in memory, one node on Raft, or a
// cluster of three. The program is started as operators start it, with a configuration file, and is initialised, unsealed and
// audited through its API. The same program is the lab's Agent, except for OpenBao.
package vaultserver
