// Package install tests the life of an installation: from a release's files to a running fleet, a change of its profiles, and an
// update of its functions, all while instances use what they were granted and others start and end. Each test has a world of its own.
package install
