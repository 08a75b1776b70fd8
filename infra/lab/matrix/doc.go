// Package matrix runs the integration tests on several versions of Vault and tabulates what their attempts met on each.
package matrix
