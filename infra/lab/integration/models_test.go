package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// vaultCaller is what vault.Client and vaulttest.Client have in common.
type vaultCaller interface {
	converge.Vault
	converge.Cutter
	List(ctx context.Context, path string) ([]string, error)
	Aliases(ctx context.Context, authMount string) ([]vault.Alias, error)
	Entity(ctx context.Context, m vault.LoginMount, alias string) (string, error)
	Identity(ctx context.Context, m vault.LoginMount, alias string) (*vault.Identity, error)
}

// vaultSide is the lab's Vault or the model.
type vaultSide struct {
	vaultCaller
	// login logs the instance in on a mount with a setting of ec2_alias; named puts the instance ID into the alias's metadata.
	login func(ec2Alias string, named bool) bool
	ids   []string // role_ids and entity IDs by their first appearance
}

// nth returns a name for an ID that only this side has.
func (s *vaultSide) nth(id string) string {
	if !slices.Contains(s.ids, id) {
		s.ids = append(s.ids, id)
	}
	return fmt.Sprint("ID ", slices.Index(s.ids, id))
}

// modelCall makes one call. Its result must be the same on both sides.
type modelCall func(ctx context.Context, s *vaultSide) (any, error)

// reading returns the fields that the test writes. A zero value counts as absent.
func reading(path string) modelCall {
	return func(ctx context.Context, s *vaultSide) (any, error) {
		data, err := s.Read(ctx, path)
		if data == nil {
			return nil, err
		}
		out := map[string]any{}
		for _, name := range []string{"policy", "auth_type", "bound_ec2_instance_id", "token_policies", "token_ttl", "allow_any_name", "max_ttl", "allowed_domains", "allowed_users"} {
			if v := data[name]; v != nil && v != false && v != "" && v != json.Number("0") && !reflect.DeepEqual(v, []any{}) {
				out[name] = v
			}
		}
		if id, ok := data["role_id"].(string); ok {
			out["role_id"] = s.nth(id)
		}
		return out, err
	}
}

func writing(path string, fields map[string]any) modelCall {
	return func(ctx context.Context, s *vaultSide) (any, error) {
		stored, err := s.Write(ctx, path, fields)
		return stored != nil, err
	}
}

func deleting(path string) modelCall {
	return func(ctx context.Context, s *vaultSide) (any, error) { return nil, s.Delete(ctx, path) }
}

// listing returns the names with the instance ID, and those that every Vault has.
func listing(folder, id string) modelCall {
	return func(ctx context.Context, s *vaultSide) (any, error) {
		var out []string
		names, err := s.List(ctx, folder)
		for _, n := range names {
			if strings.Contains(n, id) || n == "default" || n == "root" {
				out = append(out, n)
			}
		}
		return out, err
	}
}

// loggingIn logs in and returns the aliases with the instance ID, or a role_id read before, and their entities.
func loggingIn(ec2Alias string, named bool, id string) modelCall {
	return func(ctx context.Context, s *vaultSide) (any, error) {
		ok := s.login(ec2Alias, named)
		aliases, err := s.Aliases(ctx, "aws")
		var out []string
		for _, a := range aliases {
			switch {
			case a.Name == id:
				out = append(out, "the instance, "+s.nth(a.EntityID))
			case slices.Contains(s.ids, a.Name):
				out = append(out, s.nth(a.Name)+", "+s.nth(a.EntityID))
			}
		}
		slices.Sort(out)
		m, mountErr := s.LoginMount(ctx, "aws")
		entity, lookupErr := s.Entity(ctx, m, id)
		who, whoErr := s.Identity(ctx, m, id)
		isSame := whoErr == nil && (who == nil) == (entity == "") && (who == nil || who.EntityID == entity)
		if entity != "" {
			entity = s.nth(entity)
		}
		return []any{ok, out, entity, isSame, lookupErr, m.Path, m.EC2Alias, m.IAMAlias, m.Accessor != "", m.ConfigErr, mountErr}, err
	}
}

// cutting cuts aliases. A number is an ID read before.
func cutting(instanceID string, sure, recorded []any) modelCall {
	return func(ctx context.Context, s *vaultSide) (any, error) {
		m, err := s.LoginMount(ctx, "aws")
		if err != nil {
			return nil, err
		}
		names := func(from []any) (out []string) {
			for _, a := range from {
				if n, ok := a.(int); ok {
					a = s.ids[n]
				}
				out = append(out, fmt.Sprint(a))
			}
			return out
		}
		return s.CutOff(ctx, m, vault.Cut{InstanceID: instanceID, Sure: names(sure), Recorded: names(recorded)})
	}
}

func TestVaultModel_AnswersAsVault(t *testing.T) {
	vaultWrite(t, "sys/mounts/model_ssh", map[string]any{"type": "ssh"})
	defer vaultDelete(t, "sys/mounts/model_ssh")
	aliases(t, map[string]any{"ec2_alias": "instance_id", "ec2_metadata": []string{"account_id", "instance_id"}})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	lab := &vaultSide{vaultCaller: vault.New(vault.Options{
		Addr: world.VaultAddr, CA: func(context.Context) ([]byte, error) { return []byte(world.VaultCAPEM), nil },
		Login: vault.Token{Secret: func(context.Context) ([]byte, error) {
			return json.Marshal(map[string]string{"token": world.VaultToken})
		}}.Login,
	})}
	lab.login = func(ec2Alias string, named bool) bool {
		metadata := map[bool]string{true: "account_id,instance_id", false: "account_id"}[named]
		vaultWrite(t, "auth/aws/config/identity", map[string]any{"ec2_alias": ec2Alias, "ec2_metadata": metadata})
		vaultDelete(t, "auth/aws/identity-accesslist/"+i.ID) // the nonce of the login before
		_, err := world.Fleet.Login(t.Context(), "aws", i, "")
		return err == nil
	}
	memory := vaulttest.New()
	model := &vaultSide{vaultCaller: vaulttest.Client{Vault: memory}}
	model.login = func(ec2Alias string, named bool) bool {
		memory.EC2Alias = ec2Alias
		l, ok := memory.BeginLogin("aws", i.ID)
		if ok && !named {
			memory.Add(l.Alias, "")
		}
		if ok {
			memory.EndLogin(l)
		}
		return ok
	}
	role, entry, entries := "auth/aws/role/"+i.ID, "auth/aws/identity-accesslist/"+i.ID, "auth/aws/identity-accesslist"
	another, unique := "auth/aws/role/i-0fffffffffffffff7", map[string]any{"auth_type": "iam", "bound_iam_principal_arn": i.RoleARN, "resolve_aws_unique_ids": true}
	whole := map[string]any{
		"auth_type": "ec2", "bound_ec2_instance_id": []string{i.ID}, "token_policies": []string{"default", "ec2-" + i.ID + "-node"}, "token_ttl": int64(3600),
	}
	replaced := func(folder, name string, first, second map[string]any) []modelCall {
		path := folder + "/" + name
		return []modelCall{
			reading(path), deleting(path), listing(folder, i.ID), writing(path, first), reading(path), listing(folder, i.ID), writing(path, second), reading(path),
			deleting(path), reading(path), listing(folder, i.ID),
		}
	}
	for _, rule := range []struct {
		name  string
		calls []modelCall
	}{
		{"a policy is replaced", replaced("sys/policies/acl", "ec2-"+i.ID+"-node", map[string]any{"policy": "# one"}, map[string]any{"policy": "# two"})},
		{"a PKI role is replaced", replaced("alice_cluster/pki/k8s/roles", i.ID+"-kubelet",
			map[string]any{"allow_any_name": true, "max_ttl": int64(3600), "allowed_domains": []string{"a.test"}}, map[string]any{"max_ttl": int64(7200)})},
		{"a generic object is replaced", replaced("model_ssh/roles", i.ID+"-host",
			map[string]any{"key_type": "ca", "allow_host_certificates": true, "allowed_users": "a", "max_ttl": int64(60)},
			map[string]any{"key_type": "ca", "allow_host_certificates": true, "allowed_users": "b"})},
		{"an auth role is merged, and keeps its role_id and type", []modelCall{
			reading(role), writing(role, whole), reading(role), writing(role, map[string]any{"auth_type": "ec2", "token_ttl": int64(60)}), reading(role),
			writing(role, map[string]any{"auth_type": "iam"}), reading(role), listing("auth/aws/role", i.ID), writing(another, unique),
			writing(another, map[string]any{"auth_type": "iam", "resolve_aws_unique_ids": false}), writing(another, unique), deleting(another), reading(another),
		}},
		{"a login leaves an accesslist entry, an alias and its entity, which outlive the auth role", []modelCall{
			listing(entries, i.ID), loggingIn("instance_id", true, i.ID), listing(entries, i.ID), loggingIn("instance_id", true, i.ID),
			deleting(role), loggingIn("instance_id", true, i.ID), cutting(i.ID, []any{"unknown"}, []any{"unknown"}), cutting(i.ID, []any{i.ID, i.ID}, nil), cutting(i.ID, []any{i.ID}, nil),
			deleting(entry), listing(entries, i.ID),
		}},
		{"a new auth role has a new role_id, and a recorded alias is cut only if its metadata names the instance", []modelCall{
			writing(role, whole), reading(role), loggingIn("role_id", true, i.ID), cutting("i-0fffffffffffffff7", nil, []any{2}), cutting(i.ID, nil, []any{2}),
			loggingIn("role_id", false, i.ID), cutting(i.ID, nil, []any{"unknown", 2, i.ID}), cutting(i.ID, []any{2}, nil), loggingIn("role_id", true, i.ID),
		}},
	} {
		for n, call := range rule.calls {
			want, wantErr := call(t.Context(), lab)
			got, gotErr := call(t.Context(), model)
			sameKind := (gotErr == nil) == (wantErr == nil) && fault.KindOf(gotErr) == fault.KindOf(wantErr)
			if !reflect.DeepEqual(got, want) || !sameKind {
				t.Errorf("%s: call %d: Vault answers\n%#v, %v\nthe model\n%#v, %v\nwhat tests on the model show would not hold", rule.name, n, want, wantErr, got, gotErr)
			}
		}
	}
}

// lookup is what instance.Lookup and instancetest.EC2 have in common.
type lookup interface {
	converge.Instances
	Account(ctx context.Context) (string, error)
	List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error
}

func TestEC2Model_AnswersAsLookup(t *testing.T) {
	const region = "eu-central-2" // where no other test has instances
	config, err := world.Fleet.Config(t.Context(), world.AccountID, region)
	if err != nil {
		t.Fatal(err)
	}
	memory := map[string]facts.Instance{}
	in := func(state facts.State, role string) facts.Ref {
		i := launch(t, fleet.Spec{Role: role, Region: region})
		change := map[facts.State]func(context.Context, ...fleet.Instance) error{facts.Stopped: world.Fleet.Stop, facts.Terminated: world.Fleet.Terminate}[state]
		if change != nil {
			if err := change(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		memory[i.ID] = facts.Instance{ID: i.ID, State: state, Account: i.AccountID, Region: region, IAMInstanceProfileARN: i.InstanceProfileARN, IAMRoleARN: i.RoleARN}
		return facts.Ref{ID: i.ID, Place: facts.Place{Account: i.AccountID, Region: region}}
	}
	running, bare := in(facts.Running, "alice-worker"), in(facts.Running, "")
	refs := []facts.Ref{running, bare, in(facts.Stopped, "alice-worker"), in(facts.Terminated, "alice-worker")}
	elsewhere, unknown := running, running
	elsewhere.Region, unknown.ID = "eu-west-3", "i-0fffffffffffffff6"
	lab := instance.New(instance.Options{Config: config})
	model := instancetest.EC2{Own: world.AccountID, Instances: memory, Now: time.Now}
	text := func(s instance.Sighting) string {
		f := s.Facts
		return fmt.Sprintln(s.Found, s.Err, f.ID, f.State, f.Account, f.Region, f.IAMInstanceProfileARN, f.IAMRoleARN, f.ObservedAt.IsZero(), f.RoleObservedAt.IsZero())
	}
	answers := func(from lookup) (out []string) {
		all := append(slices.Clone(refs), elsewhere, unknown)
		seen := from.Describe(t.Context(), all)
		for _, ref := range all {
			now, err := from.RoleNow(t.Context(), seen[ref].Facts)
			out = append(out, "look: "+text(seen[ref])+fmt.Sprintln("role now:", now.IAMRoleARN, err))
		}
		for _, ids := range [][]string{nil, {running.ID, refs[3].ID}, {unknown.ID}, {bare.ID, unknown.ID}} {
			var listed []string
			err := from.List(t.Context(), running.Place, ids, func(page []instance.Sighting) error {
				for _, s := range page {
					listed = append(listed, text(s))
				}
				return nil
			})
			slices.Sort(listed)
			out = append(out, fmt.Sprintln("list:", listed, err))
		}
		broken := errors.New("enough")
		account, err := from.Account(t.Context())
		err = errors.Join(err, from.List(t.Context(), running.Place, nil, func([]instance.Sighting) error { return broken }))
		return append(out, fmt.Sprintln(account, errors.Is(err, broken)))
	}
	if want, got := answers(lab), answers(model); !slices.Equal(got, want) {
		t.Errorf("instance.Lookup answers\n%v\nthe model\n%v\nwhat tests on the model show would not hold", want, got)
	}
}
