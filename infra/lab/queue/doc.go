// Package queue feeds a function from an SQS queue as Lambda's event source mapping
// does: it gathers batches, builds the SQS event, bounds the concurrent
// invocations, and deletes exactly the messages that the function's answer allows.
// Visibility timeouts and the dead-letter queue are the queue's own.
package queue
