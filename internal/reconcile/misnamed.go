package reconcile

import (
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// misnamed is an object inside this program's name space whose name is not of the form of an instance's objects. The functions'
// Vault policies reach it, so an attacker who took over a function may have made it as a back door. No record and no marker
// leads there.
type misnamed struct {
	kind grant.Kind
	path string
}

// misnamedError is the error of the row of a misnamed object.
const misnamedError = "it is inside this program's name space, and its name is not of the form of an instance's objects: " +
	"a function's Vault token or an administrator made it, and reconcile never removes it. " +
	"Read it, find who made it in Vault's audit log, and delete it by hand"

// addMisnamed adds a key that is not of the form of an instance's objects, if it is inside the program's name space.
func (l *listing) addMisnamed(kind grant.Kind, folder, key string) {
	if strings.HasPrefix(key, grant.NamePrefix(kind)) {
		l.misnamed = append(l.misnamed, misnamed{kind: kind, path: folder + "/" + key})
	}
}

// misnamedRows returns the rows of the misnamed objects, sorted by path. They belong to no instance, so they are only reported.
func (l *listing) misnamedRows() []Change {
	rows := make([]Change, len(l.misnamed))
	for i, m := range l.misnamed {
		rows[i].Drift = Drift{Object: m.kind, Path: m.path, Reason: Conflicting, Action: None, Fields: []string{}, Error: misnamedError}
	}
	slices.SortFunc(rows, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return rows
}
