// Package lab starts the whole system on one machine from real parts: a Vault
// server, moto as the AWS APIs, DynamoDB Local, the product's template deployed
// into them, and the product's own Lambda binaries fed from the real queues.
package lab
