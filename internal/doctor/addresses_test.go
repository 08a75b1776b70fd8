package doctor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// With bind_token_to_instance_ip each login is a 403 behind a balancer that hides the instance's address, while all else is green.
func TestDoctor_SaysWhetherVaultSeesTheAddresses(t *testing.T) {
	const role, entries, name = "auth/aws/role/" + instanceID, "auth/aws/identity-accesslist", "vault.example.com"
	leadsTo := func(canonical string, err error) func(*world) {
		return func(w *world) {
			w.options.VaultHost = name
			w.options.Resolve = func(context.Context, string) (string, error) { return canonical, err }
		}
	}
	loggedIn := func(cidrs ...any) func(*world) {
		return func(w *world) {
			w.lists[entries] = []string{instanceID}
			w.objects[role] = map[string]any{"token_bound_cidrs": cidrs}
		}
	}
	for name, row := range map[string]struct {
		change func(*world)
		says   []string
		not    string
	}{
		"a login that succeeded proves it": {loggedIn("10.1.1.4"), []string{"instance " + instanceID + ", whose login is bound to its addresses, has logged in"}, "Behind"},
		"a login that is not bound proves nothing": {
			loggedIn(), []string{"no login of theirs is known", "infra/instance/README.md"}, "has logged in",
		},
		"no login": {
			func(w *world) { w.objects[role] = map[string]any{"token_bound_cidrs": []any{"10.1.1.4"}} },
			[]string{"At least 1 auth roles are bound so, and no login of theirs is known", "each login is a 403", "When a login is refused with 403"}, "leads to",
		},
		"a Network Load Balancer":              {leadsTo("vault-0a1b.elb.eu-central-1.amazonaws.com.", nil), []string{"leads to vault-0a1b.elb.eu-central-1.amazonaws.com: a Network Load Balancer, which can hide them"}, "Classic"},
		"an Application Load Balancer":         {leadsTo("internal-vault-1.eu-central-1.elb.amazonaws.com.", nil), []string{"an Application or Classic Load Balancer"}, "Network"},
		"PrivateLink":                          {leadsTo("vpce-0a1b-x.vpce-svc-0c2d.eu-central-1.vpce.amazonaws.com.", nil), []string{"a PrivateLink endpoint"}, "Load Balancer, which"},
		"China":                                {leadsTo("internal-vault-1.cn-north-1.elb.amazonaws.com.cn.", nil), []string{"an Application or Classic Load Balancer"}, "Network"},
		"an ordinary name":                     {leadsTo("vault-1.example.com.", nil), []string{"no login of theirs is known"}, "leads to"},
		"a name that cannot be looked up":      {leadsTo("", errors.New("no such host")), []string{"no login of theirs is known"}, "leads to"},
		"a login although a balancer is there": {func(w *world) { loggedIn("10.1.1.4")(w); leadsTo("v.elb.eu-central-1.amazonaws.com.", nil)(w) }, []string{"saw its own address then; vault.example.com leads to"}, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy(t)
			w.options.Profiles.Profiles[0].Auth.BindTokenToInstanceIP = true
			row.change(w)
			c := check(t, w.examine(t), "client addresses of auth/aws")
			for _, says := range row.says {
				if !c.OK || !strings.Contains(c.Detail, says) {
					t.Errorf("want ok, and %q, got %+v", says, c)
				}
			}
			if strings.Contains(c.Detail, row.not) {
				t.Errorf("want no %q, got %q", row.not, c.Detail)
			}
		})
	}
}

func TestDoctor_AddressesWithoutAListFail(t *testing.T) {
	w := healthy(t)
	w.options.Profiles.Profiles[0].Auth.BindTokenToInstanceIP = true
	w.objectErrs["auth/aws/identity-accesslist"] = err403
	if c := check(t, w.examine(t), "client addresses of auth/aws"); c.OK || !strings.Contains(c.Remedy, "vault-ec2 setup") {
		t.Errorf("want the missing right named, got %+v", c)
	}
}
