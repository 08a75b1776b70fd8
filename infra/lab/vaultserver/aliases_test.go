package vaultserver_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// A Vault with other users has many aliases of other mounts. Single ones are found where the list is too long.
func TestAliases_OfManyUsersAreBounded(t *testing.T) {
	const others = 3000
	server := partstest.Vault(t, partstest.Workspace(t))
	root, err := fleet.VaultClient(server.Address, server.CAPEM, server.RootToken)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path string, fields map[string]any) map[string]any {
		answer, err := root.Logical().WriteWithContext(t.Context(), path, fields)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if answer == nil {
			return nil
		}
		return answer.Data
	}
	write("sys/auth/aws", map[string]any{"type": "aws"})
	write("sys/auth/people", map[string]any{"type": "userpass"})
	accessor := func(mount string) any {
		shown, err := root.Logical().ReadWithContext(t.Context(), "sys/internal/ui/mounts/auth/"+mount)
		if err != nil {
			t.Fatal(err)
		}
		return shown.Data["accessor"]
	}
	people, instances := accessor("people"), accessor("aws")
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for n := worker; n < others; n += 8 {
				write("identity/entity-alias", map[string]any{"name": fmt.Sprint("person-", n), "mount_accessor": people})
			}
		})
	}
	group.Wait()
	entity := fmt.Sprint(write("identity/entity-alias", map[string]any{"name": "i-0123456789abcdef0", "mount_accessor": instances})["canonical_id"])

	client := func(most int) *vault.Client {
		return vault.New(vault.Options{
			Addr: server.Address, MaxAliases: most, CA: func(context.Context) ([]byte, error) { return []byte(server.CAPEM), nil },
			Login: func(context.Context, *vault.Conn) (*vaultapi.SecretAuth, error) {
				return &vaultapi.SecretAuth{ClientToken: server.RootToken, LeaseDuration: 3600}, nil
			},
		})
	}
	got, err := client(others+1).Aliases(t.Context(), "aws")
	if err != nil || len(got) != 1 || got[0] != (vault.Alias{Name: "i-0123456789abcdef0", EntityID: entity}) {
		t.Errorf("want the one alias of the mount among %d others, got %v, %v", others, got, err)
	}
	bounded := client(others / 3)
	if got, err := bounded.Aliases(t.Context(), "aws"); !errors.Is(err, vault.ErrTooLong) || got != nil {
		t.Errorf("want the list beyond the bound refused, got %d aliases, %v", len(got), err)
	}
	mount, err := bounded.LoginMount(t.Context(), "aws")
	if err != nil {
		t.Fatal(err)
	}
	for alias, want := range map[string]string{"i-0123456789abcdef0": entity, "person-1": "", "i-none": ""} {
		if id, err := bounded.Entity(t.Context(), mount, alias); err != nil || id != want {
			t.Errorf("%s on auth/aws: want the entity %q, got %q, %v", alias, want, id, err)
		}
	}
}
