package setup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// aliasFields returns the identity settings that make the instance ID the alias of an instance's logins, so that a cut
// needs no stored alias. The alias carries the instance's ID in its metadata: a removal uses it as the proof that an entity
// is the instance's.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#configure-identity-integration
func aliasFields() map[string]any {
	return map[string]any{
		"ec2_alias": "instance_id", "iam_alias": "role_id",
		"ec2_metadata": []string{"account_id", "auth_type", "instance_id"},
		"iam_metadata": []string{"account_id", "auth_type", "inferred_entity_id"},
	}
}

// writesAliases reports whether this run writes the alias settings: on a mount that it made, or with --set-alias. An existing
// mount may have other users, who get new entities when the alias changes.
func (s *setup) writesAliases() bool { return s.made[grant.AuthMountPath(s.AuthMount)] || s.SetAlias }

func (s *setup) aliasPath() string { return grant.AuthConfigPath(s.AuthMount, "identity") }

// identity writes the alias settings if writesAliases.
func (s *setup) identity(ctx context.Context) error {
	if !s.writesAliases() {
		return nil
	}
	return s.write(ctx, s.aliasPath(), aliasFields(), nil)
}

// checkAliases returns an error if the alias settings of an existing mount prevent a removal from finding the entity of an
// instance, and so from cutting its tokens.
func (s *setup) checkAliases(ctx context.Context) error {
	there, err := s.mounted(ctx, "sys/auth")
	if err != nil {
		return err
	}
	if s.SetAlias || there[s.AuthMount] == nil {
		return nil
	}
	current, err := s.read(ctx, s.aliasPath())
	if err != nil {
		return err
	}
	var hidden []string
	if alias := fmt.Sprint(current["ec2_alias"]); s.logsInBy("ec2") && alias != "instance_id" && alias != "role_id" {
		hidden = append(hidden, "ec2_alias="+alias)
	}
	if alias := fmt.Sprint(current["iam_alias"]); s.logsInBy("iam") && alias != "role_id" {
		hidden = append(hidden, "iam_alias="+alias)
	}
	if len(hidden) > 0 && !s.KeepAlias {
		return fault.Refusef("%s has %s: the removal of an instance could not cut its tokens. Nothing was written. "+
			"Use --auth-mount for an auth mount of the instances' own; or run with --set-alias if this mount has no other users, "+
			"since they get new entities; or run with --keep-alias, and removals are refused", s.aliasPath(), strings.Join(hidden, " and "))
	}
	if len(hidden) > 0 {
		s.notice("%s has %s: the removal of an instance cannot cut its tokens", s.aliasPath(), strings.Join(hidden, " and "))
	}
	if !s.namesInstances(current) {
		s.notice("%s does not put the instance ID into the metadata of an alias: run with --set-alias to change that", s.aliasPath())
	}
	return nil
}

// namesInstances reports whether the alias of each instance's login names the instance in its metadata.
func (s *setup) namesInstances(current map[string]any) bool {
	return (!s.logsInBy("ec2") || holds(current["ec2_metadata"], "instance_id")) &&
		(!s.logsInBy("iam") || holds(current["iam_metadata"], "inferred_entity_id"))
}

func holds(list any, value string) bool {
	all, _ := list.([]any)
	for _, v := range all {
		if v == value {
			return true
		}
	}
	return false
}

func (s *setup) logsInBy(kind string) bool {
	for _, p := range s.profiles.Profiles {
		if p.Auth.Type == kind {
			return true
		}
	}
	return false
}

// mounted returns the settings of each mount by its path; list is sys/auth or sys/mounts.
func (s *setup) mounted(ctx context.Context, list string) (map[string]map[string]any, error) {
	data, err := s.read(ctx, list)
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]any{}
	for path, settings := range data {
		if m, is := settings.(map[string]any); is {
			out[strings.TrimSuffix(path, "/")] = m
		}
	}
	return out, nil
}

var errNotFound = errors.New("not found")

// read returns the data at path. A path without data is an error that wraps errNotFound.
func (s *setup) read(ctx context.Context, path string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := s.vault.ReadWithContext(ctx, path)
	if err == nil && answer == nil {
		err = errNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return answer.Data, nil
}
