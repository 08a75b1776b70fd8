// Package lambdaapi serves the one call of Lambda's API that people use on this program, Invoke, for functions that
// run in sandboxes: what works against it works against AWS.
// https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
package lambdaapi
