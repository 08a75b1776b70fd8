// Package storm measures the start and the end of a thousand instances at once, beside the same calls by bare HTTP on the
// same machine in the same run. The built functions run in the lab's sandboxes, fed by the lab's poller with the template's
// batch size, window and concurrency; Vault and DynamoDB Local are real. EC2, IAM, SQS and EventBridge are tables in memory
// (cloud): moto, in Python, takes milliseconds for each of their calls and would dominate the measurement.
package storm
