// Package fleet is the EC2 side of the lab: it runs instances in moto, sends
// the state-change events that moto does not send by itself, and logs in to
// Vault as an instance does, with a signed identity document.
package fleet
