package reconcile

import (
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// misnamed is what Vault lists inside this program's name space under a name that no instance's object has. The functions'
// Vault policies reach it, so whoever took a function over may have made it to come back by; no record and no marker leads
// there.
type misnamed struct {
	kind grant.Kind
	path string
}

// misnamedError is the error of its row: what it is, and the next step.
const misnamedError = "it is inside this program's name space, and its name is not of the form of an instance's objects: " +
	"a function's Vault token or an administrator made it, and reconcile never removes it. " +
	"Read it, find who made it in Vault's audit log, and delete it by hand"

// addMisnamed adds a listed name that is not of the form if it is inside the program's name space. Others' names are
// others' affair.
func (l *listing) addMisnamed(kind grant.Kind, folder, key string) {
	if strings.HasPrefix(key, grant.NamePrefix(kind)) {
		l.misnamed = append(l.misnamed, misnamed{kind: kind, path: folder + "/" + key})
	}
}

// misnamedRows are the rows of the misnamed objects, by path. They have no instance, and so nothing is decided, repaired or
// counted for the delete limit by them.
func (l *listing) misnamedRows() []Change {
	rows := make([]Change, len(l.misnamed))
	for i, m := range l.misnamed {
		rows[i].Drift = Drift{Object: m.kind, Path: m.path, Reason: Conflicting, Action: None, Fields: []string{}, Error: misnamedError}
	}
	slices.SortFunc(rows, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return rows
}

// isWhole reports whether a run is for the whole fleet.
func (in Input) isWhole() bool { return len(in.InstanceIDs) == 0 && in.Profile == "" }
