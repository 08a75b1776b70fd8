// Package sandbox runs a real Lambda binary the way the Lambda service does: it
// serves the Runtime API that the binary polls, gives it one event at a time,
// holds it to its deadline, and starts it afresh after it died.
package sandbox
