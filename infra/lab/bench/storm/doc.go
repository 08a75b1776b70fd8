// Package storm measures what happens when a thousand instances start or end at once, beside the same calls by bare HTTP
// on the same machine in the same run. The functions are the built ones in the lab's sandboxes, fed by the lab's poller
// with the template's batch size, window and concurrency; Vault and DynamoDB Local are real. EC2, IAM, SQS and EventBridge
// are tables in memory (cloud): moto, in Python, takes milliseconds for what they are asked, and would be what is measured.
package storm
