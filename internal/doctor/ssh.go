package doctor

import (
	"context"
	"fmt"
	"strings"
)

func (d Doctor) sshSteps(login *step) []*step {
	var steps []*step
	for _, mount := range d.Profiles.Mounts().SSH {
		mounted := &step{name: "ssh " + mount, needs: []*step{login}, check: func(ctx context.Context) finding { return d.ssh(ctx, mount) }}
		checkOf := checksOf(mount, mounted)
		steps = append(steps, mounted, checkOf("ssh owner", d.mountOwner), checkOf("ssh roles", d.roles))
	}
	return steps
}

// ssh checks that an SSH mount can sign host certificates with principals only. Its type is known by the answer that only an SSH engine
// gives, since a mount's description may not be readable.
func (d Doctor) ssh(ctx context.Context, mount string) finding {
	makeCA := fmt.Sprintf("mount an SSH engine there and make its CA (vault-ec2 setup --pki does both): vault secrets enable -path=%s ssh; vault write %s/config/ca generate_signing_key=true key_type=ed25519", mount, mount)
	ca, err := d.Objects.Read(ctx, mount+"/config/ca")
	key, _ := ca["public_key"].(string)
	switch {
	case err != nil:
		return bad(d.remedyOr(err, makeCA+"; or "+runSetup), "%s does not answer as an SSH engine with a CA: %v", mount, err)
	case key == "":
		return bad(makeCA, "%s has no CA: no instance gets a host certificate", mount)
	}
	h, err := d.Server.Health(ctx)
	if err != nil {
		return bad("see the check \"vault\"", "%v", err)
	}
	if !h.Server.RequiresPrincipals() {
		return bad("upgrade Vault to 1.18.2 or later, or take the ssh-role outputs out of the profiles",
			"%s signs host certificates without principals, which hold for every host, or does not show that it refuses to: no instance of a profile with an ssh-role gets a grant", h.Server)
	}
	return good("%s is an SSH engine; clients trust it by the line: @cert-authority <names> %s", mount, strings.TrimSpace(key))
}
