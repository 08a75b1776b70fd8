// Package tap is a proxy between a client and a server of the lab: it forwards
// requests, records the calls, and on demand answers some of them with a fault,
// before or after the server saw them.
package tap
