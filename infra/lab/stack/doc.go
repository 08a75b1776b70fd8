// Package stack deploys the product's SAM template into moto: it expands the
// template with AWS's own translator, adapts it to what moto can do, creates the
// stack, and makes the template's tables in DynamoDB Local.
//
// What moto cannot run is handed to the caller: event source mappings, which are
// taken out of the template, and schedules, which stand in moto and never fire.
package stack
