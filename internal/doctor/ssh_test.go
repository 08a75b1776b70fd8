package doctor_test

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

const hostMount = "alice/hosts"

// withSSH returns a healthy world whose profile has host certificates.
func withSSH(t *testing.T) *world {
	t.Helper()
	set, err := grant.Load(fstest.MapFS{
		"p/profile.yaml": {Data: []byte(`{name: alice-p0, match: {iam_role_arn: "*", vpc_ids: [vpc-0a1b2c3d]}, base_path: alice, fqdn: "{{ .PrivateDNSName }}",
			auth: {token_ttl: 1h, token_max_ttl: 24h}, outputs: [{name: node, type: policy, template: policy.tmpl}, {name: sshd, type: ssh-role, path: hosts/roles, template: sshd.tmpl}]}`)},
		"p/policy.tmpl": {Data: []byte(`{{ sshAccess "sshd" }}`)},
		"p/sshd.tmpl":   {Data: []byte(`{"max_ttl": "24h"}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := healthy(t)
	w.options.Profiles = set
	w.options.Rights = rights.ByFunction(rights.Scope{Profiles: set, AuthMount: "aws"})[rights.Reconcile]
	w.objects[hostMount+"/config/ca"] = map[string]any{"public_key": "ssh-ed25519 AAAA\n"}
	w.objects[mounts+hostMount] = map[string]any{"type": "ssh", "description": grant.MountMark("alice")}
	return w
}

func TestDoctor_ExaminesSSHMounts(t *testing.T) {
	for name, row := range map[string]struct {
		spoil              func(*world)
		check, says, remed string
	}{
		"as it should be":               {func(*world) {}, "ssh " + hostMount, "@cert-authority <names> ssh-ed25519 AAAA", ""},
		"no engine":                     {fails(hostMount+"/config/ca", errors.New("status 404: no handler for route")), "ssh " + hostMount, "no handler", "vault secrets enable -path=alice/hosts ssh"},
		"no CA":                         {func(w *world) { delete(w.objects, hostMount+"/config/ca") }, "ssh " + hostMount, "has no CA", "generate_signing_key=true"},
		"no right to read it":           {fails(hostMount+"/config/ca", err403), "ssh " + hostMount, "403", "vault-ec2 setup"},
		"a Vault that signs for any":    {func(w *world) { w.health.Server.Version = "1.18.1" }, "ssh " + hostMount, "hold for every host", "1.18.2"},
		"the first Vault that does not": {func(w *world) { w.health.Server.Version = "1.18.2" }, "ssh " + hostMount, "is an SSH engine", ""},
		"OpenBao":                       {openBao("2.5.5"), "ssh " + hostMount, "is an SSH engine", ""},
		"no mark":                       {holds(mounts+hostMount, "description", ""), "ssh owner " + hostMount, "has no mark", "--deployment alice"},
		"another's":                     {holds(mounts+hostMount, "description", grant.MountMark("bob")), "ssh owner " + hostMount, "belongs to the deployment bob", "base_path"},
		"another role":                  {lists(hostMount+"/roles", "users"), "ssh roles " + hostMount, "not this program's and can issue any name: users", "another mount"},
		"a door":                        {lists(hostMount+"/roles", "i-door"), "names in vault", "takes away: alice/hosts/roles/i-door", "delete it"},
		"no folder":                     {fails(hostMount+"/roles", err403), "ssh roles " + hostMount, "403", "vault-ec2 setup"},
		"the right to sign":             {can(hostMount+"/sign/i-00000000000000000", "update"), "vault bounds", "/sign/", "no other"},
	} {
		w := withSSH(t)
		row.spoil(w)
		found := false
		for _, c := range w.examine(t).Checks {
			if c.Name != row.check {
				continue
			}
			found = true
			if c.OK != (row.remed == "") || !strings.Contains(c.Detail, row.says) || !strings.Contains(c.Remedy, row.remed) {
				t.Errorf("%s: want a detail that says %q and a remedy that says %q, got %+v", name, row.says, row.remed, c)
			}
		}
		if !found {
			t.Errorf("%s: the check %q is missing", name, row.check)
		}
	}
}
