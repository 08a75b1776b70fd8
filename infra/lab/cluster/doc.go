// Package cluster tests the functions on a real cluster of three Vault nodes that loses its leader in the middle of their
// work. Its world is separate from that of integration: three nodes need more time and memory.
package cluster
