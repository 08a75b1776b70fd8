// Package grant renders the objects that Vault should have for an instance, from the profiles and the instance's facts. It does
// no I/O apart from reading the profiles' files. docs/profiles.md has the format of profiles.
//
// profile.go loads profiles, template.go checks their templates, and match.go finds the profile of an instance. render.go renders
// its grant. The lock on certificates is in pkirole.go, sshrole.go and parameters.go, and guard.go checks every rendered policy. names.go and
// paths.go have all names and paths in Vault.
//
// A policy names the forms in which a client may ask for several names or addresses: each value alone, and all of them in canonical
// order (sorted as text, without doubles), as a comma string and, for addresses, as a JSON list. No other order and no other subset
// is named. The text is the same for every version of Vault.
package grant
