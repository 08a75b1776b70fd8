// Package certificates finds out which instance each stored certificate of a PKI mount was issued to, and revokes the certificates of
// ended instances.
//
// Vault lists stored certificates by serial number alone. So each one is read once in its life, and the ledger remembers its owner:
// a run costs a list for each mount, and a read for each certificate that was issued since the last run. docs/decisions/certificates.md
// has the reasons.
package certificates
