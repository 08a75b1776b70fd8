// Package stack deploys the product's SAM template into moto: it expands the
// template with AWS's own translator, adapts it to moto's features, creates the
// stack, and makes the template's tables in DynamoDB Local.
//
// The caller runs the parts that moto cannot run: event source mappings, which are
// removed from the template, and schedules, which exist in moto and never fire.
package stack
