package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// CutOff deletes the identity entities behind aliases on an auth mount. Every token of an entity, batch tokens
// included, is refused from the next request on. It answers how many there were.
//
// An entity that has aliases on other mounts as well is somebody's who logs in elsewhere too: it is left alone and
// named in an error of kind fault.Conflict.
// https://developer.hashicorp.com/vault/api-docs/secret/identity/entity#delete-entity-by-id
func (c *Client) CutOff(ctx context.Context, authMount string, aliases ...string) (int, error) {
	accessor, err := c.mountAccessor(ctx, authMount)
	if err != nil {
		return 0, err
	}
	cut := 0
	var conflicts []error
	for _, alias := range aliases {
		const lookup = "identity/lookup/entity"
		entity, err := c.write(ctx, "looking up the alias "+alias+" by", lookup, map[string]any{
			"alias_name": alias, "alias_mount_accessor": accessor,
		})
		if err != nil {
			return cut, err
		}
		id, _ := entity["id"].(string)
		if id == "" {
			continue
		}
		list, _ := entity["aliases"].([]any)
		for _, a := range list {
			if fields, _ := a.(map[string]any); fields["mount_accessor"] != accessor {
				conflicts = append(conflicts, fault.Conflictf("entity %s has the alias %s on auth/%s and another on %v: it was merged with an identity that is not the instance's; separate them and delete the instance's",
					id, alias, authMount, fields["mount_path"]))
				id = ""
				break
			}
		}
		if id == "" {
			continue
		}
		if err := c.Delete(ctx, "identity/entity/id/"+id); err != nil {
			return cut, err
		}
		cut++
	}
	return cut, errors.Join(conflicts...)
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
