package setup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// checkOwners returns an error if a PKI or SSH mount of the profiles belongs to another deployment. Claims on names are unique
// within one ledger, so two deployments on one mount could give one name to two instances.
func (s *setup) checkOwners(ctx context.Context) error {
	there, err := s.mounted(ctx, "sys/mounts")
	if err != nil {
		return err
	}
	mounts := s.profiles.Mounts()
	for _, mount := range mounts.All() {
		owner, marked := grant.MountOwner(description(there[mount]))
		if s.Deployment != "" && marked && owner != s.Deployment {
			return fault.Refusef("the %s belongs to the deployment %s and not to %s: a mount belongs to one deployment. "+
				"Nothing was written. Use another base_path in the profiles of %s", mounts.Describe(mount), owner, s.Deployment, s.Deployment)
		}
	}
	return nil
}

// owners marks the PKI and SSH mounts of the profiles as this deployment's.
func (s *setup) owners(ctx context.Context) error {
	there, err := s.mounted(ctx, "sys/mounts")
	if err != nil {
		return err
	}
	for _, folder := range s.unmounted(there) {
		s.notice("%s is below no mount: mount the engine that this output of a profile needs (vault secrets enable -path=<mount> <type>); this command mounts PKI and SSH engines for roles only", folder)
	}
	mounts := s.profiles.Mounts()
	for _, mount := range mounts.All() {
		settings := there[mount]
		_, marked := grant.MountOwner(description(settings))
		isSSH := slices.Contains(mounts.SSH, mount)
		switch {
		case isSSH && !s.made[mount] && settings == nil:
			s.notice("%s is not mounted: mount an SSH engine there with a CA, or run with --pki", mount)
		case !s.made[mount] && settings == nil:
			s.notice("%s is not mounted: mount a PKI engine there, or run with --pki", mount)
		case s.Deployment == "" && !marked:
			s.notice("the %s does not say which deployment it belongs to: run with --deployment <the stack's name>", mounts.Describe(mount))
		case s.Deployment == "" || s.made[mount]: // already marked
		default:
			if err := s.mark(ctx, mount, description(settings), marked); err != nil {
				return err
			}
		}
	}
	return nil
}

// unmounted returns the folders of the profiles' generic objects that are below no mount.
func (s *setup) unmounted(there map[string]map[string]any) []string {
	roles := s.profiles.Mounts().All()
	return slices.DeleteFunc(s.profiles.OutputFolders(), func(folder string) bool {
		isBelow := func(mount string) bool { return folder == mount || strings.HasPrefix(folder, mount+"/") }
		return slices.ContainsFunc(roles, isBelow) || slices.ContainsFunc(slices.Collect(maps.Keys(there)), isBelow)
	})
}

// mark appends this deployment's mark to a mount's description.
func (s *setup) mark(ctx context.Context, mount, before string, marked bool) error {
	path := "sys/mounts/" + mount + "/tune"
	if marked {
		s.report("ok", path, "")
		return nil
	}
	s.report("update", path, "description")
	if s.DryRun {
		return nil
	}
	text := grant.MountMark(s.Deployment)
	if before != "" {
		text = before + "; " + text
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := s.vault.WriteWithContext(ctx, path, map[string]any{"description": text}); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func description(mount map[string]any) string {
	text, _ := mount["description"].(string)
	return text
}
