package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// lookupPath finds an entity by its alias.
const lookupPath = "identity/lookup/entity"

// LoginMount is an auth mount, with the settings by which it names the identities of its logins.
type LoginMount struct {
	Path     string
	Accessor string
	// EC2Alias and IAMAlias name the source of a login's alias, for roles of type ec2 and iam.
	EC2Alias, IAMAlias string
	// ConfigErr is the error of reading these two settings; nil when they were read.
	ConfigErr error
}

// LoginMount returns an auth mount's accessor and alias settings. It fails when this token sees no accessor. Settings that
// cannot be read do not fail it (ConfigErr): tokens can be cut without them, but not with certainty.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#configure-identity-integration
func (c *Client) LoginMount(ctx context.Context, authMount string) (LoginMount, error) {
	m := LoginMount{Path: authMount}
	var err error
	if m.Accessor, err = c.mountAccessor(ctx, authMount); err != nil {
		return m, err
	}
	data, err := c.Read(ctx, "auth/"+authMount+"/config/identity")
	if err == nil && data == nil {
		err = fault.Retryf("reading auth/%s/config/identity in Vault: the answer is empty", authMount)
	}
	m.ConfigErr = err
	m.EC2Alias, _ = data["ec2_alias"].(string)
	m.IAMAlias, _ = data["iam_alias"].(string)
	return m, nil
}

// Cut names an instance's identities to cut off.
type Cut struct {
	InstanceID string
	// Sure are the aliases that Vault itself attributes to the instance.
	Sure []string
	// Recorded are the aliases that only the ledger attributes to it.
	Recorded []string
}

// CutOff deletes the identity entities behind aliases on an auth mount and returns their number. Vault refuses every token of
// a deleted entity, batch tokens included, from the next request on.
//
// CutOff leaves two kinds of entity alone and names them in an error of kind fault.Conflict: one with aliases on other mounts,
// because its client logs in there too, and one behind a recorded alias whose metadata does not name the instance, because
// it may belong to another client.
// https://developer.hashicorp.com/vault/api-docs/secret/identity/entity#delete-entity-by-id
func (c *Client) CutOff(ctx context.Context, m LoginMount, cut Cut) (int, error) {
	aliases := slices.Concat(cut.Sure, cut.Recorded)
	entities, failed := c.entities(ctx, m, aliases)
	var deleted []string
	var conflicts []error
	for i, entity := range entities {
		id, _ := entity["id"].(string)
		if id == "" || slices.Contains(deleted, id) {
			continue
		}
		if err := m.checkExclusive(cut.InstanceID, aliases[i], entity, i < len(cut.Sure)); err != nil {
			conflicts = append(conflicts, fmt.Errorf("entity %s: %w", id, err))
			continue
		}
		if err := c.Delete(ctx, "identity/entity/id/"+id); err != nil {
			return len(deleted), err
		}
		deleted = append(deleted, id)
	}
	if failed != nil {
		return len(deleted), failed
	}
	return len(deleted), errors.Join(conflicts...)
}

// entities looks up the entity behind each alias, side by side; empty where there is none. With an error it returns those that it found.
func (c *Client) entities(ctx context.Context, m LoginMount, aliases []string) ([]map[string]any, error) {
	entities := make([]map[string]any, len(aliases))
	var group errgroup.Group // without a context: one failure does not end the others
	for i, alias := range aliases {
		group.Go(func() (err error) {
			entities[i], err = c.entity(ctx, m, alias)
			return err
		})
	}
	err := group.Wait()
	return entities, err
}

// checkExclusive returns an error of kind fault.Conflict when an entity may belong to a client other than the instance.
func (m LoginMount) checkExclusive(instanceID, alias string, entity map[string]any, sure bool) error {
	list, _ := entity["aliases"].([]any)
	for _, a := range list {
		fields, _ := a.(map[string]any)
		if fields["mount_accessor"] != m.Accessor {
			return fault.Conflictf("it has the alias %s on auth/%s and another on %v: it was merged with another client's identity; separate the two and delete the instance's",
				alias, m.Path, fields["mount_path"])
		}
		metadata, _ := fields["metadata"].(map[string]any)
		sure = sure || metadata["instance_id"] == instanceID || metadata["inferred_entity_id"] == instanceID
	}
	if !sure {
		return fault.Conflictf("the ledger records its alias %s for instance %s, but nothing in Vault shows that the entity belongs to that instance: find its owner, and delete it if it is the instance's; run vault-ec2 setup, so that logins name their instance",
			alias, instanceID)
	}
	return nil
}

// mountAccessor returns the accessor of an auth mount. Any token may read this path for a mount on which it has some right;
// listing sys/auth would need a right of its own and show every mount.
// https://developer.hashicorp.com/vault/api-docs/system/internal-ui-mounts
func (c *Client) mountAccessor(ctx context.Context, authMount string) (string, error) {
	data, err := c.Read(ctx, grant.MountInfoPath(grant.AuthMountPath(authMount)))
	if err != nil {
		return "", err
	}
	accessor, _ := data["accessor"].(string)
	if accessor == "" {
		return "", fmt.Errorf("reading the accessor of auth/%s: Vault returned none", authMount)
	}
	return accessor, nil
}
