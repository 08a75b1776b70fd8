// Package parts runs the external programs of the lab as child processes: a real
// Vault server, moto (the AWS APIs) and DynamoDB Local. It builds or fetches
// missing programs into a cache folder, waits until each part answers, and ends
// each one by the process that it started, never by name.
package parts
