// Package alarms evaluates CloudWatch alarms: it reads an alarm's definition from a template's properties and walks it over a
// stream of samples. It makes no calls.
//
// It follows AWS's pages, by which it treats each minute as one evaluation with a sliding window:
//   - https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
//   - https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
//   - https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation-window.html
//   - https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
//
// The pages leave two things open; a Reading answers both, and a test tries every Reading. A definition that needs more than is
// implemented here is an error, never a guess.
package alarms
