// Package integration tests the product on the real parts of the lab: its built binaries, Vault, DynamoDB Local and
// moto. One world serves all tests of the package. Each test works on instances of its own.
package integration
