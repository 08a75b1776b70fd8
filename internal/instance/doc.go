// Package instance looks instances up in EC2, IAM and STS, across accounts and regions, and tags them. A batch costs one
// DescribeInstances for each account and region, and one GetInstanceProfile for each instance profile, whose answer is cached.
// While an Availability Zone is out of service it costs up to splitBurst more. Its callers are internal/converge,
// internal/reconcile, internal/handler and internal/doctor.
package instance
