package reconcile

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// roster holds what Vault lists and the ledger records, by instance, in the form that takes the least memory: a fleet of 100,000 is
// read once and is in memory as a whole.
type roster struct {
	entries map[string]*entry
	// forms are the forms of all paths; formOf has their places.
	forms  []form
	formOf map[form]int32
	places map[facts.Place]*facts.Place
	packer ledger.Packer
	// claims are the holders of all names.
	claims map[claimed]*entry
}

// entry is what the roster holds of one instance.
type entry struct {
	id string
	// objects are the forms of the paths of its policies, auth role, PKI roles and generic objects in Vault.
	objects []int32
	// leftovers are the paths of the identity entities and accesslist entries that its logins left.
	leftovers []string
	// place is where its record says that it is; nil without a record, and for a tombstone.
	place *facts.Place
	// record is its record. It is empty outside the stretch, and for most tombstones (inventory.addRecord).
	record ledger.Packed
	// quarantined reports whether it lives in quarantine, by its record.
	quarantined bool
	// unseen is a folder that could not be listed, where its record names an object; empty if there is none.
	unseen string
}

// form is a path without the instance's ID in it. Most instances of a profile have the same forms.
type form struct{ before, after string }

// claimed is the digest of a name. Two names with the same one are not found: it has 128 bits.
type claimed [16]byte

func digest(n ledger.Name) claimed {
	sum := sha256.Sum256([]byte(ledger.ClaimKey(n)))
	return claimed(sum[:len(claimed{})])
}

func newRoster() *roster {
	return &roster{
		entries: map[string]*entry{}, formOf: map[form]int32{}, places: map[facts.Place]*facts.Place{}, claims: map[claimed]*entry{},
	}
}

// of returns what is held of an instance; an empty entry if nothing is.
func (r *roster) of(id string) *entry {
	if e := r.entries[id]; e != nil {
		return e
	}
	return &entry{}
}

// add returns the entry of an instance to add to.
func (r *roster) add(id string) *entry {
	e := r.entries[id]
	if e == nil {
		id = strings.Clone(id) // it may be a part of a longer text, which would stay in memory
		e = &entry{id: id}
		r.entries[id] = e
	}
	return e
}

// addPath adds the path of an object of an instance.
func (r *roster) addPath(id, path string) {
	f := splitPath(id, path)
	place, known := r.formOf[f]
	if !known {
		place = int32(len(r.forms))
		r.forms, r.formOf[f] = append(r.forms, f), place
	}
	e := r.add(id)
	e.objects = append(e.objects, place)
}

// splitPath returns the form of a path of an instance.
func splitPath(id, path string) form {
	before, after, _ := strings.Cut(path, id)
	return form{before, after}
}

// lists reports whether a path is one of an instance's.
func (r *roster) lists(id, path string) bool {
	place, known := r.formOf[splitPath(id, path)]
	return known && slices.Contains(r.of(id).objects, place)
}

// paths returns the paths of an instance's objects in Vault.
func (r *roster) paths(id string) []string {
	var paths []string
	for _, place := range r.of(id).objects {
		paths = append(paths, r.forms[place].before+id+r.forms[place].after)
	}
	return paths
}

// addLeftover adds the path of a leftover of an instance's logins.
func (r *roster) addLeftover(id, path string) {
	e := r.add(id)
	e.leftovers = append(e.leftovers, path)
}

// leftovers returns the paths of the leftovers of an instance's logins.
func (r *roster) leftovers(id string) []string { return r.of(id).leftovers }

// recordOf returns the record of an instance; nil if none is held.
func (r *roster) recordOf(id string) *ledger.Record {
	packed := r.of(id).record
	if packed == "" {
		return nil
	}
	return r.packer.Unpack(packed)
}

// recordedAt returns the place of an instance whose record is no tombstone. isRecorded is false for any other.
func (r *roster) recordedAt(id string) (p facts.Place, isRecorded bool) {
	if e := r.of(id); e.place != nil {
		return *e.place, true
	}
	return facts.Place{}, false
}

// setPlace sets the place of a recorded instance.
func (r *roster) setPlace(e *entry, p facts.Place) {
	if r.places[p] == nil {
		r.places[p] = &p
	}
	e.place = r.places[p]
}

// addClaim adds the holder of a name.
func (r *roster) addClaim(n ledger.Name, holder string) { r.claims[digest(n)] = r.add(holder) }

// holderOf returns the instance that holds a name; empty if none does.
func (r *roster) holderOf(n ledger.Name) string {
	if e := r.claims[digest(n)]; e != nil {
		return e.id
	}
	return ""
}
