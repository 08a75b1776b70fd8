package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/api"
)

// enableAudit enables the file audit device over the listener, as an operator does,
// so that the ready line also proves that TLS and the handler work.
func enableAudit(ctx context.Context, self ready, file string) error {
	cfg := api.DefaultConfig()
	cfg.Address = self.Address
	cfg.Timeout = 10 * time.Second
	if err := cfg.ConfigureTLS(&api.TLSConfig{CACertBytes: []byte(self.CAPEM)}); err != nil {
		return fmt.Errorf("trusting the server's own CA: %w", err)
	}
	client, err := api.NewClient(cfg)
	if err != nil {
		return fmt.Errorf("making a client of %s: %w", self.Address, err)
	}
	client.SetToken(self.RootToken)
	return client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type:    "file",
		Options: map[string]string{"file_path": file, "mode": "0600"},
	})
}
