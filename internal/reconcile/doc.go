// Package reconcile compares the whole fleet: EC2, the ledger and Vault. It reports each difference as a row, field by field,
// and has converge repair it. A teardown removes everything that the deployment made.
//
// Vault's lists are read first, then the ledger, and EC2 last. An instance is in EC2 before it has a record, and has a record
// before it has objects. So a grant that is made meanwhile never looks like a leftover: a listed object has its record in the
// later scan, and a recorded instance was in EC2 before EC2 is asked.
//
// A comparison returns one flat list of rows. Pure filters on that list choose each row's action, and the list is the answer.
// Every write is made by converge, after a second look at EC2 and Vault.
//
//	input.go      the input, and the cursor of a run that outlasts its invocation
//	answer.go     the answer: rows and their counts
//	reconcile.go  Run: a run stretch by stretch, and the parts it works with
//	listing.go    Vault's lists
//	inventory.go  the lists, and the ledger's records of one stretch
//	roster.go     both in the form that takes little memory
//	survey.go     EC2's listing, compared page by page with the inventory
//	patience.go   the bound on an account that lists slowly
//	contents.go   the reads of one instance, before and after its comparison
//	compare.go    the comparison of one instance, without I/O
//	untracked.go  rows of objects in no record, by their owner
//	unproven.go   rows of the same for instances that no run compares
//	misnamed.go   rows of objects whose names belong to no instance
//	format.go     the text of a difference
//	plan.go       the action of each row
//	limits.go     the delete limit, and the other reasons to withhold a delete
//	repair.go     repairs by converge or by the provision queue
//	places.go     the places and folders that could not be looked at
//	teardown.go   TearDown: the removal of everything
//	gone.go       RemoveGone: the removal by an operator's word
package reconcile
