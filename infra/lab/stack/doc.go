// Package stack deploys the product's SAM template into moto: it expands the
// template with AWS's own translator, adapts it to what moto can do, creates the
// stack, and makes the template's tables in DynamoDB Local.
//
// What moto cannot run (event source mappings, schedules) is taken out of the
// template and handed to the caller, who runs it.
package stack
