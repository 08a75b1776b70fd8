package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// LoginMount is an auth mount, and how it names the identities of those that log in there.
type LoginMount struct {
	Path     string
	Accessor string
	// EC2Alias and IAMAlias are what the alias of a login is made from, by the type of its role.
	EC2Alias, IAMAlias string
	// Unread says why the settings could not be read; nil when they were.
	Unread error
}

// LoginMount returns what is known of an auth mount. It fails when the mount has no accessor that this token sees. That
// the settings cannot be read stands in the answer: cutting tokens does not depend on them, only being sure of it does.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#configure-identity-integration
func (c *Client) LoginMount(ctx context.Context, authMount string) (LoginMount, error) {
	m := LoginMount{Path: authMount}
	var err error
	if m.Accessor, err = c.mountAccessor(ctx, authMount); err != nil {
		return m, err
	}
	data, err := c.Read(ctx, "auth/"+authMount+"/config/identity")
	if err == nil && data == nil {
		err = fault.Retryf("reading auth/%s/config/identity in Vault: it answers nothing", authMount)
	}
	m.Unread = err
	m.EC2Alias, _ = data["ec2_alias"].(string)
	m.IAMAlias, _ = data["iam_alias"].(string)
	return m, nil
}

// Cut names the identities to cut off.
type Cut struct {
	InstanceID string
	// Sure are aliases that are the instance's by Vault's own word; Recorded are those that only the ledger says so of.
	Sure, Recorded []string
}

// CutOff deletes the identity entities behind aliases on an auth mount. Every token of an entity, batch tokens
// included, is refused from the next request on. It returns how many there were.
//
// An entity that has aliases on other mounts as well is of a client that logs in elsewhere too, and one behind a recorded
// alias whose metadata does not name the instance may be anybody's: both are left alone and named in an error of kind
// fault.Conflict.
// https://developer.hashicorp.com/vault/api-docs/secret/identity/entity#delete-entity-by-id
func (c *Client) CutOff(ctx context.Context, m LoginMount, cut Cut) (int, error) {
	n := 0
	var conflicts []error
	for i, alias := range slices.Concat(cut.Sure, cut.Recorded) {
		const lookup = "identity/lookup/entity"
		entity, err := c.write(ctx, "looking up the alias "+alias+" by", lookup, map[string]any{
			"alias_name": alias, "alias_mount_accessor": m.Accessor,
		})
		if err != nil {
			return n, err
		}
		id, _ := entity["id"].(string)
		if id == "" {
			continue
		}
		if err := m.isOnly(cut.InstanceID, alias, entity, i < len(cut.Sure)); err != nil {
			conflicts = append(conflicts, fmt.Errorf("entity %s: %w", id, err))
			continue
		}
		if err := c.Delete(ctx, "identity/entity/id/"+id); err != nil {
			return n, err
		}
		n++
	}
	return n, errors.Join(conflicts...)
}

// isOnly returns an error of kind fault.Conflict when an entity may be somebody else's as well as the instance's.
func (m LoginMount) isOnly(instanceID, alias string, entity map[string]any, sure bool) error {
	list, _ := entity["aliases"].([]any)
	for _, a := range list {
		fields, _ := a.(map[string]any)
		if fields["mount_accessor"] != m.Accessor {
			return fault.Conflictf("it has the alias %s on auth/%s and another on %v: it was merged with an identity that is not the instance's; separate them and delete the instance's",
				alias, m.Path, fields["mount_path"])
		}
		metadata, _ := fields["metadata"].(map[string]any)
		sure = sure || metadata["instance_id"] == instanceID || metadata["inferred_entity_id"] == instanceID
	}
	if !sure {
		return fault.Conflictf("the ledger records its alias %s for instance %s, and nothing in Vault shows that it is the instance's: look whose it is, and delete it if it is; run the Vault setup, so that logins name their instance",
			alias, instanceID)
	}
	return nil
}

// mountAccessor is the accessor of an auth mount. This path shows a token the mounts it can use at all, so it needs
// no grant of its own; listing sys/auth would show all of them.
// https://developer.hashicorp.com/vault/api-docs/system/internal-ui-mounts
func (c *Client) mountAccessor(ctx context.Context, authMount string) (string, error) {
	data, err := c.Read(ctx, "sys/internal/ui/mounts/auth/"+authMount)
	if err != nil {
		return "", err
	}
	accessor, _ := data["accessor"].(string)
	if accessor == "" {
		return "", fmt.Errorf("reading the accessor of auth/%s: Vault answered none", authMount)
	}
	return accessor, nil
}
