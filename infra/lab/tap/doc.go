// Package tap stands between a client and a server of the lab: it passes
// requests on, records which calls were made, and on demand answers some of them
// with a fault, before or after the server saw them.
package tap
