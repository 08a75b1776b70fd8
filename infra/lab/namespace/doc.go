// Package namespace tests a deployment in a namespace. Its tests run on every server: on one without namespaces, they check that the
// set-up and the doctor say so.
package namespace
