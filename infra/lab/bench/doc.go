// Package bench measures what comparing a fleet costs, beside the least it could cost: the same lists and the same reads
// by bare HTTP, in the same run, in turn. Vault and DynamoDB Local are real; EC2 is a generator in the measured process.
//
// Each measurement is a process of its own, so that its memory holds nothing of the filling or of the one before.
package bench
