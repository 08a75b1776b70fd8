// Package bench measures the cost of comparing a fleet beside the least possible cost: the same lists and reads by bare
// HTTP, alternating in the same run. Vault and DynamoDB Local are real; EC2 is a generator in the measured process.
//
// Each measurement has a process of its own, so that its memory holds nothing of the filling or of an earlier measurement.
package bench
