// Package vaulttest has Vault in memory, for tests with a fault at each call and for tests with millions of steps. A test of
// infra/lab compares its answers with those of a real Vault.
package vaulttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// Vault is the content of a Vault. Access rights, default values and Vault's own objects are left out. It is not safe for
// concurrent use.
type Vault struct {
	Objects  map[string]map[string]any // by path, as they were written
	Entities map[Alias]Entity
	// EC2Alias and IAMAlias are the settings of every auth mount; see vault.LoginMount.
	EC2Alias, IAMAlias string
	// RoleDefaults are fields of every PKI role that a server has besides those that are written, with their default values;
	// nil for Vault's, whose default values are left out.
	RoleDefaults map[string]any
	// Now returns the time; needed only where a client is behind.
	Now func() time.Time

	made   int // role_ids and entities
	former map[string][]version
}

// version is what was at a path until a write or delete of a client.
type version struct {
	object map[string]any
	until  time.Time
}

// keepFormer keeps the object at a path, which is about to change.
func (v *Vault) keepFormer(path string) {
	if v.Now == nil {
		return
	}
	if v.former == nil {
		v.former = map[string][]version{}
	}
	v.former[path] = append(v.former[path], version{object: v.Objects[path], until: v.Now()})
}

// ForgetFormer has every client see the present object at a path.
func (v *Vault) ForgetFormer(path string) { delete(v.former, path) }

// Alias is the name of an identity on an auth mount.
type Alias struct{ Mount, Name string }

// Entity is the identity behind an alias: its tokens live as long as it does.
type Entity struct {
	ID string
	// InstanceID is in the metadata of the alias; empty for a login before the Vault setup that names instances there.
	InstanceID string
}

// New returns an empty Vault with auth mounts as the Vault setup makes them.
func New() *Vault {
	return &Vault{Objects: map[string]map[string]any{}, Entities: map[Alias]Entity{}, EC2Alias: "instance_id", IAMAlias: "role_id"}
}

// Add adds an entity, as by a login. instanceID is the metadata of its alias; see Entity.
func (v *Vault) Add(a Alias, instanceID string) {
	v.made++
	v.Entities[a] = Entity{ID: fmt.Sprintf("entity-%d", v.made), InstanceID: instanceID}
}

// Login is a login of type ec2 that is under way.
type Login struct {
	Alias
	InstanceID string
}

// BeginLogin reads the auth role of an instance, which Vault does first. ok is false if there is none.
func (v *Vault) BeginLogin(mount, instanceID string) (l Login, ok bool) {
	role := v.Objects["auth/"+mount+"/role/"+instanceID]
	l = Login{Alias: Alias{Mount: mount, Name: instanceID}, InstanceID: instanceID}
	if v.EC2Alias == "role_id" {
		l.Name, _ = role["role_id"].(string)
	}
	return l, role != nil
}

// EndLogin makes what a login makes at its end, even if the auth role was deleted since: the accesslist entry, and the entity
// if the alias has none.
func (v *Vault) EndLogin(l Login) {
	v.Objects["auth/"+l.Mount+"/identity-accesslist/"+l.InstanceID] = map[string]any{}
	if _, exists := v.Entities[l.Alias]; !exists {
		v.Add(l.Alias, l.InstanceID)
	}
}

// Client has the methods of vault.Client on a Vault.
type Client struct {
	*Vault
	// Behind is how old the objects are that Read and List show, as on a server that is behind.
	Behind time.Duration
	// Do makes each call if it is not nil. kind and path name the call, effect changes Vault and sets the answer, and the error of
	// Do is the error of the call.
	Do func(kind, path string, effect func() error) error
}

// shown returns the object that Read and List show at a path; nil for none.
func (c Client) shown(path string) map[string]any {
	object := c.Objects[path]
	for _, v := range slices.Backward(c.former[path]) {
		if c.Now().Sub(v.until) >= c.Behind {
			break
		}
		object = v.object
	}
	return object
}

func (c Client) do(kind, path string, effect func() error) error {
	if c.Do == nil {
		return effect()
	}
	return c.Do(kind, path, effect)
}

// Read returns the object at a path, in the types that vault.Client decodes, or nil if there is none.
func (c Client) Read(_ context.Context, path string) (out map[string]any, err error) {
	err = c.do("read", path, func() error {
		out, _ = decoded(c.shown(path)).(map[string]any)
		return nil
	})
	return out, err
}

// decoded returns a value in the types that an answer's JSON is decoded to.
func decoded(value any) any {
	switch value := value.(type) {
	case int64:
		return json.Number(fmt.Sprint(value))
	case []string:
		list := make([]any, len(value))
		for i, s := range value {
			list[i] = s
		}
		return list
	case map[string]any:
		if value == nil {
			return nil
		}
		out := make(map[string]any, len(value))
		for name, v := range value {
			out[name] = decoded(v)
		}
		return out
	default:
		return value
	}
}

// Write replaces the object at a path. An auth role keeps its role_id and the fields that are not written, and refuses what
// Vault does not change in place. A PKI role is answered as it is stored.
func (c Client) Write(_ context.Context, path string, fields map[string]any) (answer map[string]any, err error) {
	err = c.do("write", path, func() error {
		stored := maps.Clone(fields)
		if strings.Contains(path, "/roles/") {
			stored = maps.Clone(c.RoleDefaults)
			if stored == nil {
				stored = map[string]any{}
			}
			maps.Copy(stored, fields)
		}
		if strings.HasPrefix(path, "auth/") && strings.Contains(path, "/role/") {
			old := c.Objects[path]
			if was := old["auth_type"]; was != nil && was != fields["auth_type"] || old["resolve_aws_unique_ids"] == true && fields["resolve_aws_unique_ids"] == false {
				return fault.Refusef("writing %s in Vault: auth_type does not change, nor resolve_aws_unique_ids to false", path)
			}
			stored = map[string]any{}
			maps.Copy(stored, old)
			maps.Copy(stored, fields)
			if stored["role_id"] == nil {
				c.made++
				stored["role_id"] = fmt.Sprintf("role-%d", c.made)
			}
		}
		c.keepFormer(path)
		c.Objects[path] = stored
		if strings.Contains(path, "/pki/") && strings.Contains(path, "/roles/") {
			answer, _ = decoded(stored).(map[string]any)
		}
		return nil
	})
	return answer, err
}

// Delete deletes the object at a path, if there is one.
func (c Client) Delete(_ context.Context, path string) error {
	return c.do("delete", path, func() error {
		c.keepFormer(path)
		delete(c.Objects, path)
		return nil
	})
}

// List returns the names in a folder, sorted; every Vault has the policies default and root.
func (c Client) List(_ context.Context, path string) (out []string, err error) {
	err = c.do("list", path, func() error {
		if path == "sys/policies/acl" {
			out = append(out, "default", "root")
		}
		paths := slices.Collect(maps.Keys(c.Objects))
		if c.Behind > 0 {
			paths = slices.AppendSeq(paths, maps.Keys(c.former))
		}
		for _, at := range paths {
			if name, ok := strings.CutPrefix(at, path+"/"); ok && !strings.Contains(name, "/") && c.shown(at) != nil {
				out = append(out, name)
			}
		}
		slices.Sort(out)
		out = slices.Compact(out)
		return nil
	})
	return out, err
}

// Aliases returns the aliases on an auth mount.
func (c Client) Aliases(_ context.Context, mount string) (out []vault.Alias, err error) {
	err = c.do("aliases", mount, func() error {
		for a, e := range c.Entities {
			if a.Mount == mount {
				out = append(out, vault.Alias{Name: a.Name, EntityID: e.ID})
			}
		}
		slices.SortFunc(out, func(a, b vault.Alias) int { return strings.Compare(a.Name, b.Name) })
		return nil
	})
	return out, err
}

// Entity returns the entity behind an alias; empty if there is none. The path for Do is the mount and the alias.
func (c Client) Entity(_ context.Context, m vault.LoginMount, alias string) (id string, err error) {
	err = c.do("entity", m.Path+" "+alias, func() error {
		id = c.Entities[Alias{Mount: m.Path, Name: alias}].ID
		return nil
	})
	return id, err
}

// Identity returns the entity behind an alias, without its times; nil if there is none. It is a call of the kind of Entity.
func (c Client) Identity(ctx context.Context, m vault.LoginMount, alias string) (*vault.Identity, error) {
	id, err := c.Entity(ctx, m, alias)
	if err != nil || id == "" {
		return nil, err
	}
	return &vault.Identity{EntityID: id}, nil
}

// LoginMount returns the settings of an auth mount.
func (c Client) LoginMount(_ context.Context, mount string) (out vault.LoginMount, err error) {
	err = c.do("mount", mount, func() error {
		out = vault.LoginMount{Path: mount, Accessor: "auth_" + mount, EC2Alias: c.EC2Alias, IAMAlias: c.IAMAlias}
		return nil
	})
	return out, err
}

// CutOff deletes the entities behind aliases and counts them. It fails with a conflict for each entity whose recorded alias does
// not name the instance. The path for Do is the mount and the aliases.
func (c Client) CutOff(_ context.Context, m vault.LoginMount, cut vault.Cut) (n int, err error) {
	names := slices.Concat(cut.Sure, cut.Recorded)
	err = c.do("cut", strings.Join(append([]string{m.Path}, names...), " "), func() error {
		var conflicts []error
		for i, name := range names {
			a := Alias{Mount: m.Path, Name: name}
			e, exists := c.Entities[a]
			switch {
			case !exists:
			case i >= len(cut.Sure) && e.InstanceID != cut.InstanceID:
				conflicts = append(conflicts, fault.Conflictf("entity %s: nothing shows that its alias %s is instance %s's", e.ID, name, cut.InstanceID))
			default:
				delete(c.Entities, a)
				n++
			}
		}
		return errors.Join(conflicts...)
	})
	return n, err
}

// RevokePrefix does nothing: there are no leases here.
func (c Client) RevokePrefix(_ context.Context, prefix string) error {
	return c.do("revoke", prefix, func() error { return nil })
}
