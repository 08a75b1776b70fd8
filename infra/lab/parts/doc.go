// Package parts runs the outside programs of the lab as child processes: a real
// Vault server, moto (the AWS APIs) and DynamoDB Local. It builds or fetches
// what is missing into a cache folder, waits until each part answers, and ends
// each one by the process it started, never by name.
package parts
