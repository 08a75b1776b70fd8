// Package lambdaapi serves Invoke, the only call of Lambda's API that operators of this program use, for functions that
// run in sandboxes. The commands' client is the same as against AWS.
// https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
package lambdaapi
