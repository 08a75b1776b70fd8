// Package vault is the functions' client of one Vault server. It logs in and keeps its token valid, reads, writes, lists and
// deletes objects, cuts live tokens and revokes leases. internal/wiring makes it; internal/converge, internal/reconcile and
// internal/doctor call it. It knows nothing of EC2.
package vault
