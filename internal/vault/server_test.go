package vault_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// serverOf returns the server that an answer of sys/health shows.
func serverOf(t *testing.T, answer string) vault.Server {
	t.Helper()
	s, c := newServer(t)
	s.answer("sys/health", 200, answer)
	h, err := c.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h.Server
}

func TestServer_IsKnownByItsHealth(t *testing.T) {
	const openBao = `{"initialized":true,"sealed":false,"standby":false,"performance_standby":false,"replication_dr_mode":"disabled","version":"2.5.5"}`
	for name, row := range map[string]struct {
		answer string
		want   vault.Server
		says   string
	}{
		"Vault":                    {healthy, vault.Server{Product: vault.HashiCorp, Version: "1.21.0"}, "Vault 1.21.0"},
		"Vault Enterprise":         {of("1.19.5+ent.hsm", "true"), vault.Server{Product: vault.HashiCorp, Version: "1.19.5+ent.hsm", Enterprise: true}, "Vault 1.19.5+ent.hsm"},
		"Vault with a number of 2": {of("2.0.1", "false"), vault.Server{Product: vault.HashiCorp, Version: "2.0.1"}, "Vault 2.0.1"},
		"an old Vault":             {strings.Replace(openBao, "2.5.5", "1.12.0", 1), vault.Server{Product: vault.HashiCorp, Version: "1.12.0"}, "Vault 1.12.0"},
		"OpenBao":                  {openBao, vault.Server{Product: vault.OpenBao, Version: "2.5.5"}, "OpenBao 2.5.5"},
	} {
		t.Run(name, func(t *testing.T) {
			got := serverOf(t, row.answer)
			if got != row.want || got.String() != row.says {
				t.Errorf("want %+v as %q, got %+v as %q", row.want, row.says, got, got)
			}
		})
	}
}

// of returns the healthy answer with another version and edition.
func of(version, enterprise string) string {
	return strings.NewReplacer("1.21.0", version, `"enterprise":false`, `"enterprise":`+enterprise).Replace(healthy)
}

func TestServer_AnswersItsFeatures(t *testing.T) {
	type features struct {
		standing                                vault.Standing
		wholeLists, externalID, addresses, long bool
	}
	bao := func(v string) vault.Server { return vault.Server{Product: vault.OpenBao, Version: v} }
	hashi := func(v string) vault.Server { return vault.Server{Product: vault.HashiCorp, Version: v} }
	for server, want := range map[vault.Server]features{
		hashi("1.15.6"):          {vault.Unsupported, true, false, false, true},
		hashi("1.16.0-rc1"):      {vault.Tried, true, false, false, true},
		hashi("1.16.3"):          {vault.Tried, true, false, false, true},
		hashi("1.17.0"):          {vault.Tried, true, true, false, true},
		hashi("1.18.99"):         {vault.Tried, true, true, false, true},
		hashi("1.19.18"):         {vault.Tried, true, true, false, true},
		hashi("1.19.19"):         {vault.Tried, true, true, false, false},
		hashi("1.20.13+ent"):     {vault.Tried, true, true, false, false},
		hashi("1.21.0"):          {vault.Tried, false, true, false, true},
		hashi("1.21.8"):          {vault.Tried, false, true, false, false},
		hashi("1.22.0"):          {vault.Untried, false, true, false, true},
		hashi("2.0.2"):           {vault.Untried, false, true, false, true},
		hashi("2.1.0"):           {vault.Untried, false, true, false, false},
		hashi("version unknown"): {vault.Unreadable, true, false, false, true},
		bao("2.4.1"):             {vault.Untried, true, false, true, true},
		bao("2.5.5"):             {vault.Tried, true, false, true, true},
		bao("2.6.0"):             {vault.Untried, true, false, true, true},
	} {
		got := features{server.Standing(), server.ComparesWholeLists(), server.StoresExternalID(), server.LocksAddresses(), server.IgnoresMaxTTL()}
		if got != want {
			t.Errorf("%s: want %+v, got %+v", server, want, got)
		}
	}
}

// TestServer_PageAgreesWithCode compares the table of docs/vault-versions.md with the answers of Server.
func TestServer_PageAgreesWithCode(t *testing.T) {
	page, err := os.ReadFile("../../docs/vault-versions.md")
	if err != nil {
		t.Fatal(err)
	}
	is := map[string]func(vault.Server) bool{
		"supported": func(s vault.Server) bool { return s.Standing() == vault.Tried && s.Product == vault.HashiCorp },
		"a list in `allowed_parameters` is compared as a whole":       vault.Server.ComparesWholeLists,
		"`config/sts` stores `external_id`":                           vault.Server.StoresExternalID,
		"a PKI role has `allowed_ip_sans_cidr` and `not_after_bound`": vault.Server.LocksAddresses,
		"`not_after` may exceed a PKI role's `max_ttl` by default":    vault.Server.IgnoresMaxTTL,
	}
	var servers []vault.Server
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if servers == nil && len(cells) > 3 {
			for _, c := range cells[1:] {
				s := vault.Server{Product: vault.HashiCorp, Version: c + ".0"}
				if v, isBao := strings.CutPrefix(c, "OpenBao "); isBao {
					s = vault.Server{Product: vault.OpenBao, Version: v + ".0"}
				}
				servers = append(servers, s)
			}
		}
		answer, compared := is[cells[0]]
		if !compared {
			continue
		}
		delete(is, cells[0])
		for i, s := range servers {
			if yes := !strings.HasPrefix(cells[i+1], "no"); yes != answer(s) {
				t.Errorf("%s: the page says %q of %s, the code %v", cells[0], cells[i+1], s, answer(s))
			}
		}
	}
	if len(is) > 0 || len(servers) < 7 {
		t.Errorf("the page has no row for %v, or lacks a server of %v", slices.Sorted(maps.Keys(is)), servers)
	}
}
