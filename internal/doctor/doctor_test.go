package doctor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const identity, mounts = "auth/aws/config/identity", "sys/internal/ui/mounts/"

// names are the names of all checks of a healthy world, in the report's order.
var names = []string{
	"vault", "vault version", "vault namespace", "vault login", "vault rights", "vault bounds",
	"auth/aws", "lifetimes of auth/aws", "aliases of auth/aws", "certificates of auth/aws", "accounts of auth/aws", "pki " + pki, "issuers " + pki, "acme " + pki,
	"pki owner " + pki, "pki roles " + pki, "names in vault",
	"aws identity", "member role own account", "iam own account", "ec2 own account us-east-1", "ec2 own account eu-central-1",
	"member role " + foreign, "iam " + foreign, "ec2 " + foreign + " us-east-1",
	"ledger table", "ledger recovery", "ledger expiry", "ledger open", "profiles", "profile overlap", "profile rules", "profile networks",
}

func TestDoctor_HealthyChecksNeedNoRemedy(t *testing.T) {
	r := healthy(t).examine(t)
	if r.Mode != "doctor" || !r.OK {
		t.Errorf("want mode doctor and ok, got %q, %v", r.Mode, r.OK)
	}
	var got []string
	for _, c := range r.Checks {
		got = append(got, c.Name)
		if !c.OK || c.Detail == "" || c.Remedy != "" {
			t.Errorf("want %q OK, with a detail and no remedy; got %+v", c.Name, c)
		}
	}
	if !slices.Equal(got, names) {
		t.Errorf("want the same checks in the same order each time:\n got %q\nwant %q", got, names)
	}
}

func TestDoctor_EachFaultFailsItsOwnCheck(t *testing.T) {
	noVault, noMount, noPKI, noTable := names[:17], names[6:11], names[11:16], names[25:29]
	for name, row := range map[string]struct {
		spoil  func(*world)
		fails  []string // the first names the cause
		says   string
		remedy string
	}{
		"Vault cannot be reached":    {func(w *world) { w.healthErr = errors.New("dial tcp: connection refused") }, noVault, "connection refused", "VAULT_ADDR"},
		"Vault is not initialised":   {func(w *world) { w.health.Initialized = false }, noVault, "not initialised", "operator init"},
		"Vault is sealed":            {func(w *world) { w.health.Sealed = true }, noVault, "sealed", "unseal"},
		"Vault waits for a disaster": {func(w *world) { w.health.DRSecondary = true }, noVault, "disaster", "primary"},
		"a Vault that is too old":    {func(w *world) { w.health.Server.Version = "1.15.6" }, names[1:2], "older than 1.16", "upgrade Vault"},
		"a detached standby":         {func(w *world) { w.health.Standby, w.health.Detached = true, true }, noVault, "active server", "load balancer"},
		"a server that ignores namespaces": {
			namespaced(fmt.Errorf("namespace team: %w", vault.ErrNamespacesIgnored)), names[2:17], "root namespace", "unset VAULT_NAMESPACE",
		},
		"a namespace that does not exist": {
			namespaced(fmt.Errorf("namespace team: %w", vault.ErrNoNamespace)), names[2:17], "no such namespace", "VAULT_NAMESPACE=team",
		},
		"a namespace that cannot be looked for": {
			namespaced(errors.New("looking for the namespace team: status 429")), names[2:17], "429", "vault",
		},
		"the login in a namespace is refused": {
			func(w *world) { w.options.Namespace, w.loginErr = "team", errors.New("status 403: permission denied") },
			names[3:17], "permission denied", "vault-ec2 setup (VAULT_NAMESPACE=team) with --function-role reconcile=",
		},
		"the login is refused": {
			func(w *world) { w.loginErr = errors.New("status 400: IAM Principal does not belong to the role") },
			names[3:17], "does not belong", "--function-role reconcile=",
		},
		"a right is missing": {
			can("alice/pki/k8s/roles/i-00000000000000000", "read", "update"),
			[]string{"vault rights"}, "alice/pki/k8s/roles/i-* (create delete)", "vault-ec2 setup",
		},
		"a list is missing":               {can("sys/policies/acl", "deny"), []string{"vault rights"}, "sys/policies/acl (list)", "vault-ec2 setup"},
		"more than needed at an own path": {can(identity, "read", "update"), []string{"vault bounds"}, identity + " (update)", "no other"},
		"its own policy": {
			can("sys/policies/acl/ec2-provisioner-reconcile", "update"),
			[]string{"vault bounds"}, "sys/policies/acl/ec2-provisioner-reconcile (update)", "no other",
		},
		"another function's role": {
			can("auth/aws-functions/role/ec2-provisioner-provision", "read"), []string{"vault bounds"}, "ec2-provisioner-provision (read)", "no other",
		},
		"new tokens":                  {can("auth/token/create", "create"), []string{"vault bounds"}, "auth/token/create", "no other"},
		"certificates without a role": {can(pki+"/sign-verbatim", "update"), []string{"vault bounds"}, "sign-verbatim", "no other"},
		"an instance's certificates":  {can(pki+"/issue/i-00000000000000000", "update"), []string{"vault bounds"}, "/issue/", "no other"},
		"revocation, which is not switched on": {
			can("sys/leases/revoke-prefix/"+pki+"/issue/i-00000000000000000", "sudo", "update"), []string{"vault bounds"}, "revoke-prefix", "no other",
		},
		"the capabilities cannot be read": {
			func(w *world) { w.capErr = errors.New("status 403") }, []string{"vault rights", "vault bounds"}, "403", "vault-ec2 setup",
		},
		"no auth mount": {fails(mounts+"auth/aws", errors.New("status 403: preflight")), noMount, "preflight", "VAULT_AUTH_MOUNT"},
		"the token ended before ACME's settings were read": {
			fails(pki+"/config/acme", fmt.Errorf("reading %s in Vault: %w at https://vault: status 404", pki+"/config/acme", vault.ErrLogin)),
			[]string{"acme " + pki}, "status 404", "--function-role reconcile=",
		},
		"an auth mount of another type": {holds(mounts+"auth/aws", "type", "approle"), noMount, "approle", "type aws"},
		"an alias shared by all instances of an image": {
			holds(identity, "ec2_alias", "image_id"), []string{"aliases of auth/aws"}, "ec2_alias=image_id", "ec2_alias=instance_id",
		},
		"the alias settings do not exist": {
			func(w *world) { delete(w.objects, identity) }, []string{"aliases of auth/aws"}, "share", "-set-alias",
		},
		"the alias settings cannot be read": {fails(identity, err403), []string{"aliases of auth/aws"}, "403", "vault-ec2 setup"},
		"an account without a role for Vault": {
			lists("auth/aws/config/sts", "999999999999"), []string{"accounts of auth/aws"}, foreign, "--sts-role " + foreign + "=",
		},
		"Vault's accounts cannot be listed":      {fails("auth/aws/config/sts", err403), []string{"accounts of auth/aws"}, "403", "vault-ec2 setup"},
		"no PKI mount":                           {fails(pki+"/issuers", errors.New("status 404: no handler for route")), noPKI, "no handler", "-pki"},
		"a PKI mount without an issuer":          {func(w *world) { w.issuers = nil }, noPKI, "no issuer", "-pki"},
		"a PKI mount without a default issuer":   {func(w *world) { w.issuers = w.issuers[1:] }, noPKI, `not "default", which alice-p0, alice-p1 uses`, pki + "/config/issuers default="},
		"another engine at the PKI mount's path": {holds(mounts+pki, "type", "kv"), noPKI, "type kv", "PKI engine"},
		"ACME is enabled":                        {holds(pki+"/config/acme", "enabled", true), []string{"acme " + pki}, "no policy applies", "enabled=false"},
		"ACME's setting is unreadable":           {holds(pki+"/config/acme", "enabled", "yes"), []string{"acme " + pki}, "does not say", "by hand"},
		"a PKI mount without a mark":             {holds(mounts+pki, "description", "nodes"), []string{"pki owner " + pki}, "has no mark", "--deployment alice"},
		"another deployment's PKI mount": {
			holds(mounts+pki, "description", grant.MountMark("bob")), []string{"pki owner " + pki}, "belongs to the deployment bob and not to alice", "base_path",
		},
		"a PKI role that is not this program's": {
			lists(pki+"/roles", "i-0123456789abcdef0-kubelet", "web"), []string{"pki roles " + pki}, "any name: web", "another mount",
		},
		"a policy with a name that no instance can have": {
			lists("sys/policies/acl", "ec2-i-door", "ec2-"+instanceID+"-node"), []string{"names in vault"}, "takes away: sys/policies/acl/ec2-i-door", "delete it",
		},
		"an auth role with a name that no instance can have": {
			lists("auth/aws/role", "i-door", instanceID), []string{"names in vault"}, "takes away: auth/aws/role/i-door", "delete it",
		},
		"an object with a name that no instance can have": {
			lists(pki+"/roles", "i-door-kubelet"), []string{"names in vault"}, "takes away: " + pki + "/roles/i-door-kubelet", "delete it",
		},
		"an output's folder is below no mount": {
			func(w *world) {
				fails("alice/ssh/hosts", fmt.Errorf("listing: %w", vault.ErrNotMounted))(w)
				w.options.Profiles = withHosts(t)
			},
			[]string{"names in vault"}, "nothing is mounted", "mount the engine of alice/ssh/hosts (vault secrets enable",
		},
		"the policies cannot be listed":             {fails("sys/policies/acl", err403), []string{"names in vault"}, "403", "vault-ec2 setup"},
		"the roles of a PKI mount cannot be listed": {fails(pki+"/roles", err403), []string{"pki roles " + pki, "names in vault"}, "403", "vault-ec2 setup"},
		"STS cannot be reached": {
			func(w *world) { w.accountErr = noRoute("sts.us-east-1") },
			append([]string{"aws identity", "accounts of auth/aws"}, names[18:25]...), "timeout", "interface endpoint com.amazonaws.us-east-1.sts",
		},
		"STS refuses to say who the function is": {
			func(w *world) { w.accountErr = refusal{"InvalidClientTokenId"} },
			append([]string{"aws identity", "accounts of auth/aws"}, names[18:25]...), "InvalidClientTokenId", "the function's role",
		},
		"EC2 cannot be reached in the function's region": {
			func(w *world) {
				w.instancesErrs[facts.Place{Account: own, Region: "us-east-1"}] = noRoute("ec2.us-east-1")
			},
			[]string{"ec2 own account us-east-1"}, "timeout", "interface endpoint com.amazonaws.us-east-1.ec2",
		},
		"EC2 cannot be reached in another region": {
			func(w *world) {
				w.instancesErrs[facts.Place{Account: own, Region: "eu-central-1"}] = noRoute("ec2.eu-central-1")
			},
			[]string{"ec2 own account eu-central-1"}, "timeout", "no endpoint for another region",
		},
		"IAM cannot be reached": {
			func(w *world) { w.profileErrs[own] = noRoute("iam") }, []string{"iam own account"}, "timeout", "interface endpoint com.amazonaws.iam to their VPC, or a NAT gateway",
		},
		"a member role that does not trust the function": {
			func(w *world) { w.roleErrs[foreign] = refusal{"AccessDenied"} }, names[22:25], "not authorised", "MEMBER_ROLE_NAME",
		},
		"IAM denies": {
			func(w *world) { w.profileErrs[own] = refusal{"AccessDenied"} }, []string{"iam own account"}, "AccessDenied", "allow iam:GetInstanceProfile",
		},
		"EC2 denies in one region": {
			func(w *world) {
				w.instancesErrs[facts.Place{Account: own, Region: "eu-central-1"}] = fmt.Errorf("describing: %w", refusal{"UnauthorizedOperation"})
			}, []string{"ec2 own account eu-central-1"}, "UnauthorizedOperation", "allow ec2:DescribeInstances",
		},
		"a region that is not enabled": {
			func(w *world) {
				w.instancesErrs[facts.Place{Account: foreign, Region: "us-east-1"}] = refusal{"AuthFailure"}
			},
			[]string{"ec2 " + foreign + " us-east-1"}, "AuthFailure", "enabled",
		},
		"no account and region": {func(w *world) { w.options.Places = nil }, []string{"places"}, "no account", "RECONCILE_REGIONS"},
		"no table":              {func(w *world) { w.shapeErr = errors.New("ResourceNotFoundException") }, noTable, "ResourceNotFound", "TABLE_NAME"},
		"a table that may not be read": {
			func(w *world) { w.shapeErr = refusal{"AccessDeniedException"} }, noTable, "AccessDenied", "allow dynamodb:DescribeTable",
		},
		"a table that is being created":   {func(w *world) { w.shape.Status = "CREATING" }, noTable, "CREATING", "wait"},
		"another program's table":         {func(w *world) { w.shape.Keys = "id (S), sort (N)" }, noTable, "sort (N)", "TABLE_NAME"},
		"a table that cannot be restored": {func(w *world) { w.recovery = false }, []string{"ledger recovery"}, "off", "update-continuous-backups"},
		"backups that may not be read": {
			func(w *world) { w.recoveryErr = refusal{"AccessDeniedException"} },
			[]string{"ledger recovery"}, "AccessDenied", "allow dynamodb:DescribeContinuousBackups",
		},
		"nothing expires":                 {func(w *world) { w.expiry = "" }, []string{"ledger expiry"}, `""`, "update-time-to-live"},
		"another attribute expires":       {func(w *world) { w.expiry = "ttl" }, []string{"ledger expiry"}, `"ttl"`, "update-time-to-live"},
		"a deployment that was torn down": {func(w *world) { w.tornDown = &time.Time{} }, []string{"ledger open"}, "torn down", "item teardown"},
		"a teardown item that may not be read": {
			func(w *world) { w.tornDownErr = refusal{"AccessDeniedException"} }, []string{"ledger open"}, "AccessDenied", "allow dynamodb:GetItem",
		},
		"no profile": {func(w *world) { w.options.Profiles.Profiles = nil }, []string{"profiles"}, "no profile", "TEMPLATES_DIR"},
		"two profiles for one instance": {
			func(w *world) { w.options.Profiles.Profiles[1].Match.IAMRoleARN = grant.Patterns{"*"} }, []string{"profile overlap"}, "alice-p0 with alice-p1", "exclude",
		},
		"a check that panics": {func(w *world) { w.tablePanics = true }, noTable, "nil pointer", "bug of this program"},
		"a check that hangs": {
			func(w *world) { w.tableHangs, w.options.Timeout = true, 50*time.Millisecond }, noTable, "deadline", "gateway endpoint com.amazonaws.us-east-1.dynamodb",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy(t)
			row.spoil(w)
			r := w.examine(t)
			var failed []string
			for _, c := range r.Checks {
				if c.OK != (c.Remedy == "") || c.Detail == "" {
					t.Errorf("want a detail, and a remedy only if the check is not OK; got %+v", c)
				}
				if c.OK {
					continue
				}
				failed = append(failed, c.Name)
				if c.Name == row.fails[0] {
					if !strings.Contains(c.Detail, row.says) || !strings.Contains(c.Remedy, row.remedy) {
						t.Errorf("want a detail that says %q and a remedy that says %q, got %+v", row.says, row.remedy, c)
					}
				} else if row.fails[0] != "vault rights" && !strings.Contains(c.Detail, "403") && !strings.HasPrefix(c.Detail, "not checked") {
					t.Errorf("%q repeats the cause: %q", c.Name, c.Detail)
				}
			}
			want := slices.Clone(row.fails)
			slices.Sort(failed)
			slices.Sort(want)
			if r.OK || !slices.Equal(failed, want) {
				t.Errorf("want ok false and these failed checks: %q\ngot %v and %q", want, r.OK, failed)
			}
		})
	}
}

func TestDoctor_ReportsHarmlessFindingsAsOK(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*world)
		check  string
		says   string
	}{
		"lists from 1.21 on":                    {func(w *world) { w.health.Server.Version = "1.21.0" }, "vault version", "together; not_after may exceed"},
		"lists up to 1.20":                      {func(w *world) { w.health.Server.Version = "1.20.4+ent" }, "vault version", "compared as a whole"},
		"not_after, fixed in 1.20.13":           {func(w *world) { w.health.Server.Version = "1.20.13" }, "vault version", "not_after is limited"},
		"not_after, before 1.19.19":             {func(w *world) { w.health.Server.Version = "1.19.18" }, "vault version", "not_after may exceed"},
		"not_after, on an old branch":           {func(w *world) { w.health.Server.Version = "1.18.99" }, "vault version", "not_after may exceed"},
		"not_after, before 2.0.3":               {func(w *world) { w.health.Server.Version = "2.0.2" }, "vault version", "not_after may exceed"},
		"not_after, after 2.0.3":                {func(w *world) { w.health.Server.Version = "2.1.0" }, "vault version", "not_after is limited"},
		"a version newer than the tests ran on": {func(w *world) { w.health.Server.Version = "1.22.0" }, "vault version", "never ran on this version"},
		"external IDs from 1.17 on":             {func(w *world) { w.health.Server.Version = "1.16.3" }, "vault version", "no external_id"},
		"OpenBao":                               {openBao("2.5.5"), "vault version", "OpenBao 2.5.5; OpenBao is not a supported server"},
		"OpenBao's differences":                 {openBao("2.5.5"), "vault version", "an empty not_after is refused"},
		"OpenBao newer than the tests ran on":   {openBao("2.6.0"), "vault version", "OpenBao 2.6.0; the tests never ran on this version"},
		"an unknown version":                    {func(w *world) { w.health.Server.Version = "next" }, "vault version", `"next"`},
		"the root namespace":                    {func(*world) {}, "vault namespace", "root namespace"},
		"a namespace":                           {func(w *world) { w.options.Namespace = "team" }, "vault namespace", "in the namespace team"},
		"a standby":                             {func(w *world) { w.health.Standby = true }, "vault", "standby"},
		"tokens that the mount ends early": {
			holds(mounts+"auth/aws", "config", map[string]any{"max_lease_ttl": json.Number("3600")}), "lifetimes of auth/aws",
			"ends tokens after 1h, its max_lease_ttl, and token_max_ttl is longer (up to 24h) in alice-p0, alice-p1: their instances log in again earlier. To change that: vault auth tune -max-lease-ttl=24h aws/, or a lower token_max_ttl",
		},
		"tokens that the mount does not end early": {
			holds(mounts+"auth/aws", "config", map[string]any{"max_lease_ttl": json.Number("86400")}), "lifetimes of auth/aws", "it shortens no token_max_ttl",
		},
		"a mount that shows no lifetime":               {holds(mounts+"auth/aws", "config", nil), "lifetimes of auth/aws", "does not show its max_lease_ttl"},
		"the alias by role_id":                         {holds(identity, "ec2_alias", "role_id"), "aliases of auth/aws", "cannot find the entities"},
		"an iam_alias that no profile uses":            {holds(identity, "iam_alias", "unique_id"), "aliases of auth/aws", "unique_id"},
		"a PKI mount whose type cannot be read":        {fails(mounts+pki, err403), "pki " + pki, "could not be read"},
		"a PKI mount whose description cannot be read": {fails(mounts+pki, err403), "pki owner " + pki, "not checked: status 403"},
		"aliases that do not name the instance":        {holds(identity, "ec2_metadata", []any{"account_id"}), "aliases of auth/aws", "--set-alias changes that"},
		"a Vault without ACME":                         {func(w *world) { delete(w.objects, pki+"/config/acme") }, "acme " + pki, "has no ACME"},
		"an endpoint without backups": {
			func(w *world) { w.recoveryErr = fmt.Errorf("reading: %w", ledger.ErrUnsupported) }, "ledger recovery", "not checked",
		},
		"only the function's own account": {
			func(w *world) { w.options.Places = w.options.Places[:2] }, "accounts of auth/aws",
			"Vault has no role for " + own + ", the functions' own account: that is right if Vault runs in " + own + ". If it does not, no instance of " + own + " can log in: run vault-ec2 setup with --sts-role " + own + "=",
		},
		"other accounts have a role, the own one has none": {func(*world) {}, "accounts of auth/aws", "Vault has a role for " + foreign + "; Vault has no role for " + own},
		"a Vault in another account":                       {lists("auth/aws/config/sts", foreign, own), "accounts of auth/aws", "each account, the functions' own among them: " + own + ", " + foreign},
		"a Vault in another account, and no member account": {
			func(w *world) { w.options.Places, w.lists["auth/aws/config/sts"] = w.options.Places[:2], []string{own} }, "accounts of auth/aws", "each account",
		},
		"the own account by its ID": {
			func(w *world) { w.options.Places = []facts.Place{{Account: own, Region: "us-east-1"}} }, "member role " + own, "function's own",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy(t)
			row.change(w)
			r := w.examine(t)
			if !r.OK {
				t.Errorf("want ok, got %+v", r)
			}
			if c := check(t, r, row.check); !strings.Contains(c.Detail, row.says) {
				t.Errorf("%q must say %q, got %q", row.check, row.says, c.Detail)
			}
		})
	}
}

func TestDoctor_TypeIAMNeedsRoleIDAlias(t *testing.T) {
	w := healthy(t)
	w.options.Profiles = load(t, "iam", "arn:aws:iam::*:role/alice-worker")
	if c := check(t, w.examine(t), "aliases of auth/aws"); !c.OK || !strings.Contains(c.Detail, "cannot find the entities") {
		t.Errorf("iam_alias=role_id belongs to one instance: want ok and reconcile's limit named, got %+v", c)
	}
	w.objects[identity]["iam_alias"] = "unique_id"
	if c := check(t, w.examine(t), "aliases of auth/aws"); c.OK || !strings.Contains(c.Detail, "iam_alias=unique_id") {
		t.Errorf("with unique_id all instances of an IAM role share one identity: want a failed check, got %+v", c)
	}
}

// Vault stores a role with an unknown issuer, and only warns.
func TestDoctor_FindsIssuersThatRolesNameAndMountsLack(t *testing.T) {
	for template, says := range map[string]string{
		`{"max_ttl": "24h", "issuer_ref": "root-2026"}`:                                    "",
		`{"max_ttl": "24h", "issuer_ref": "id-2"}`:                                         "",
		`{"max_ttl": "24h", "issuer_ref": "default"}`:                                      "",
		`{"max_ttl": "24h", "issuer_ref": "Root-2026"}`:                                    `not "Root-2026", which alice-p0 uses`,
		`{"max_ttl": "24h", "issuer_ref": "root-2025", "organization": ["{{ .Region }}"]}`: `not "root-2025"`,
		`{"max_ttl": "24h", "issuer_ref": "root-{{ .Region }}"}`:                           "", // only the instance says which
	} {
		w := healthy(t)
		w.options.Profiles = loadWith(t, template, "ec2", "arn:aws:iam::*:role/alice-worker")
		if c := check(t, w.examine(t), "pki "+pki); c.OK != (says == "") || !strings.Contains(c.Detail, says) {
			t.Errorf("%s: want %q, got %+v", template, says, c)
		}
	}
	w := healthy(t)
	w.issuers = []vault.Issuer{{ID: "id-1"}}
	if c := check(t, w.examine(t), "pki "+pki); !c.OK {
		t.Errorf("a server that does not say which issuer is the default one: want no failure, got %+v", c)
	}
}

// Vault revokes a leased certificate when its lease ends, which the mount's max_lease_ttl bounds.
func TestDoctor_FindsLeasesThatEndBeforeCertificates(t *testing.T) {
	w := healthy(t)
	w.options.Profiles = loadWith(t, `{"max_ttl": "24h", "generate_lease": true}`, "ec2", "arn:aws:iam::*:role/alice-worker")
	for limit, ok := range map[string]bool{"86400": true, "3600": false} {
		w.objects[mounts+pki]["config"] = map[string]any{"max_lease_ttl": json.Number(limit)}
		c := check(t, w.examine(t), "leases "+pki)
		if c.OK != ok || (!ok && (!strings.Contains(c.Detail, "revokes their certificates while they are in use") || !strings.Contains(c.Remedy, "vault secrets tune -max-lease-ttl=24h "+pki+"/"))) {
			t.Errorf("max_lease_ttl of %s seconds and max_ttl of 24h: want ok %v, got %+v", limit, ok, c)
		}
	}
}

func TestDoctor_DetailIsOneBoundedLine(t *testing.T) {
	w := healthy(t)
	w.shapeErr = errors.New("first line\n\tsecond line " + strings.Repeat("encoded authorisation failure ", 200))
	c := check(t, w.examine(t), "ledger table")
	if strings.ContainsAny(c.Detail, "\n\t") || len([]rune(c.Detail)) > 600 || !strings.Contains(c.Detail, "first line second line") {
		t.Errorf("want one line of at most 600 characters, got %d: %q", len([]rune(c.Detail)), c.Detail)
	}
}

func TestDoctor_WithoutTimeFailsEveryCheck(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := doctor.Doctor{Options: healthy(t).options}.Examine(ctx)
	if r.OK || len(r.Checks) != len(names) {
		t.Errorf("want %d checks and ok false, got %d and %v", len(names), len(r.Checks), r.OK)
	}
	for _, c := range r.Checks {
		if c.OK || !strings.HasPrefix(c.Detail, "not checked") {
			t.Errorf("a check that was not made must not be OK: %+v", c)
		}
	}
}

func TestDoctor_AnswerHasTheContractNames(t *testing.T) {
	text, err := json.Marshal(doctor.Report{Mode: "doctor", Version: "v1", Checks: []doctor.Check{{Name: "n", Detail: "d", Remedy: "r"}}})
	const want = `{"mode":"doctor","ok":false,"checks":[{"name":"n","ok":false,"detail":"d","remedy":"r"}],"version":"v1"}`
	if err != nil || string(text) != want {
		t.Errorf("users' scripts need these names:\n got %s, %v\nwant %s", text, err, want)
	}
}

func check(t *testing.T, r doctor.Report, name string) doctor.Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c doctor.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %q in %+v", name, r.Checks)
	}
	return r.Checks[i]
}
