package doctor

import (
	"context"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// mountOwner checks that a PKI or SSH mount belongs to this deployment: claims on names are unique only within one ledger.
func (d Doctor) mountOwner(ctx context.Context, mount string) finding {
	data, err := d.Objects.Read(ctx, grant.MountInfoPath(mount))
	if err != nil {
		return good("not checked: %v", err)
	}
	text, _ := data["description"].(string)
	owner, marked := grant.MountOwner(text)
	switch {
	case !marked:
		return bad("run vault-ec2 setup with --deployment "+d.Deployment,
			"%s has no mark of a deployment: another deployment could use it too, and give an instance the name of one of this deployment's", mount)
	case owner != d.Deployment:
		return bad("use another base_path in the profiles: a mount belongs to one deployment",
			"%s belongs to the deployment %s and not to %s: each could give an instance the name of one of the other's", mount, owner, d.Deployment)
	}
	return good("%s belongs to this deployment, %s", mount, owner)
}

// roles looks for roles of a PKI or SSH mount that are not this program's. foreignNames checks the roles with its prefix.
func (d Doctor) roles(ctx context.Context, mount string) finding {
	path := grant.PKIRoleFolder(mount)
	roles, err := d.Objects.List(ctx, path)
	if err != nil {
		return bad(d.remedyIn(err, path), "%v", err)
	}
	foreign := slices.DeleteFunc(slices.Clone(roles), func(name string) bool { return strings.HasPrefix(name, grant.NamePrefix(grant.KindPKIRole)) })
	if len(foreign) > 0 {
		return bad("move these roles to another mount: this program's must hold its own roles only",
			"%s has roles that are not this program's and can issue any name: %s", path, abbreviate(foreign))
	}
	return good("all %[2]d roles of %[1]s are this program's", path, len(roles))
}

// folder is a folder in Vault with this program's objects of one kind.
type folder struct {
	path string
	kind grant.Kind
}

// foreignNames looks for objects that the functions' tokens can write but whose names no instance can have. Reconcile and
// teardown skip such names, so the objects would outlast a teardown.
func (d Doctor) foreignNames(ctx context.Context) finding {
	var foreign []string
	seen := 0
	for _, f := range d.folders() {
		names, err := d.Objects.List(ctx, f.path)
		if err != nil {
			return bad(d.remedyIn(err, f.path), "%v", err)
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
		return bad("read each object, find its author in Vault's audit log, and delete it",
			"the functions' tokens can write these objects, but no instance can have such a name; they may grant access that no removal takes away: %s", abbreviate(foreign))
	}
	return good("all %d names under this program's patterns have its form", seen)
}

// folders returns the folders in which this program makes objects.
func (d Doctor) folders() []folder {
	all := []folder{{grant.PolicyFolder, grant.KindPolicy}, {grant.AuthRoleFolder(d.AuthMount), grant.KindAuthRole}}
	for _, path := range d.Profiles.OutputFolders() {
		all = append(all, folder{path, grant.KindGeneric}) // a role has a name of the same form
	}
	return all
}
