package setup

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/vault/api"
)

// hostCA makes the CA of an SSH mount, unless it has one.
// https://developer.hashicorp.com/vault/api-docs/secret/ssh#submit-ca-information
func (s *setup) hostCA(ctx context.Context, mount string) error {
	path := mount + "/config/ca"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	has, err := false, error(nil)
	// An existing mount may have got its CA a moment ago: a second one must not replace it.
	s.looks.Until(ctx, func() bool {
		if s.made[mount] {
			return true
		}
		has, err = s.hasHostCA(ctx, path)
		return has
	})
	if err != nil {
		return err
	}
	if has {
		s.report("ok", path, "")
		return nil
	}
	s.report("create", path, "no CA yet")
	if s.DryRun {
		return nil
	}
	if _, err := s.vault.WriteWithContext(ctx, path, map[string]any{"generate_signing_key": true, "key_type": "ed25519"}); err != nil {
		return fmt.Errorf("making the CA of %s: %w", mount, err)
	}
	return nil
}

// hasHostCA reports whether an SSH mount has a CA. Vault answers 400 where it has none.
func (s *setup) hasHostCA(ctx context.Context, path string) (bool, error) {
	answer, err := s.vault.ReadWithContext(ctx, path)
	if refused := (*api.ResponseError)(nil); errors.As(err, &refused) && refused.StatusCode == http.StatusBadRequest {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", path, err)
	}
	return answer != nil && answer.Data["public_key"] != nil, nil
}
