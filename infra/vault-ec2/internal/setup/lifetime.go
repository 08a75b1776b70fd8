package setup

import (
	"context"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// lifetimes prints a notice for each mount that ends the profiles' tokens or leased certificates early. The command does not change
// the lifetimes of a mount: they are its operator's bound, and the mount may have other users.
func (s *setup) lifetimes(ctx context.Context) error {
	auth := grant.AuthMountPath(s.AuthMount)
	if !s.awaits(auth + "/") {
		if shown, err := s.read(ctx, grant.MountInfoPath(auth)); err != nil {
			s.notice("max_lease_ttl of %s was not checked: %v", auth, err)
		} else if capped, is := s.profiles.CapTokens(grant.MountLimit(shown)); is {
			s.notice("%s", capped.OnTokens(s.AuthMount))
		}
	}
	// Other than the auth mount's, the token of this command may have no right below a PKI mount, which the description needs.
	there, err := s.mounted(ctx, "sys/mounts")
	if err != nil {
		return err
	}
	for _, mount := range s.profiles.PKIMounts() {
		// It is 0 where the server's own limit holds: only the doctor sees that one.
		if capped, is := s.profiles.CapLeases(mount, grant.MountLimit(there[mount])); is {
			s.notice("%s: %s", capped.OnLeases(mount), capped.LeaseRemedy(mount))
		}
	}
	return nil
}
