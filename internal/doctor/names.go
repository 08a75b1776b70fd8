package doctor

import (
	"context"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// owner reports whether a PKI mount is this deployment's: claims on names are unique within one ledger.
func (d Doctor) owner(ctx context.Context, mount string) finding {
	data, err := d.Objects.Read(ctx, grant.MountInfoPath(mount))
	if err != nil {
		return good("not looked at: %v", err)
	}
	text, _ := data["description"].(string)
	owner, marked := grant.MountOwner(text)
	switch {
	case !marked:
		return bad("run infra/vault with -deployment "+d.Deployment,
			"%s bears no mark of a deployment: another one could use it too, and give an instance the name of one of this deployment's", mount)
	case owner != d.Deployment:
		return bad("use another base_path in the profiles: a PKI mount belongs to one deployment",
			"%s belongs to the deployment %s and not to %s: each could give an instance the name of one of the other's", mount, owner, d.Deployment)
	}
	return good("%s belongs to this deployment, %s", mount, owner)
}

// pkiRoles looks for roles of a PKI mount that are not this program's. What begins like one of its names is left to the
// check of the names.
func (d Doctor) pkiRoles(ctx context.Context, mount string) finding {
	path := grant.PKIRoleFolder(mount)
	roles, err := d.Objects.List(ctx, path)
	if err != nil {
		return bad(d.remedyFor(err), "%v", err)
	}
	foreign := slices.DeleteFunc(slices.Clone(roles), func(name string) bool { return strings.HasPrefix(name, grant.NamePrefix(grant.KindPKIRole)) })
	if len(foreign) > 0 {
		return bad("move these roles to a PKI mount of their own: one that this program uses should be its alone",
			"%s has roles that are not this program's, and that can issue any name: %s", path, few(foreign))
	}
	return good("%s has no role that is not this program's; roles: %d", path, len(roles))
}

// folder is a folder of the program's objects, and their kind.
type folder struct {
	path string
	kind grant.Kind
}

// names looks for what the functions' tokens can write and no instance has. The program lists and removes the names of
// its form alone, so such an object would outlast a teardown.
func (d Doctor) names(ctx context.Context) finding {
	var foreign []string
	seen := 0
	for _, f := range d.folders() {
		names, err := d.Objects.List(ctx, f.path)
		if err != nil {
			return bad(d.remedyFor(err), "%v", err)
		}
		for _, name := range names {
			if !strings.HasPrefix(name, grant.NamePrefix(f.kind)) {
				continue
			}
			seen++
			if _, ok := grant.InstanceOf(f.kind, name); !ok {
				foreign = append(foreign, f.path+"/"+name)
			}
		}
	}
	if len(foreign) > 0 {
		return bad("read each of them, look for its maker in Vault's audit log, and delete it",
			"the functions' tokens can write these, and no instance has such a name: they may be a way in that a removal leaves: %s", few(foreign))
	}
	return good("each name under the program's patterns is of its form; names: %d", seen)
}

func (d Doctor) folders() []folder {
	all := []folder{{grant.PolicyFolder, grant.KindPolicy}, {grant.AuthRoleFolder(d.AuthMount), grant.KindAuthRole}}
	for _, path := range d.Profiles.OutputFolders() {
		all = append(all, folder{path, grant.KindGeneric}) // a PKI role has a name of the same form
	}
	return all
}
