// Package sandbox runs a real Lambda binary as the Lambda service does: it serves
// the Runtime API that the binary polls, sends it one event at a time, enforces its
// deadline, and starts a new process after one died.
package sandbox
