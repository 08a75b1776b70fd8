package setup

import (
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

const pkiMount = "alice_cluster/pki/k8s"

// behind returns a set-up at a server that is behind a Vault in which everything is as it should be. The server refuses to mount
// what is mounted, as Vault does.
func behind(t *testing.T) (*setup, *vaulttest.Standby) {
	t.Helper()
	server := &vaulttest.Standby{Vault: vaulttest.New()}
	server.Objects = map[string]map[string]any{
		"sys/auth":                 {"aws/": map[string]any{"type": "aws"}},
		"sys/mounts":               {pkiMount + "/": map[string]any{"type": "pki", "description": grant.MountMark("ours")}},
		"auth/aws/config/identity": aliasFields(),
		pkiMount + "/issuers/1":    {},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/sys/auth/") {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"errors":["path is already in use at aws/"]}`)
			return
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	client, err := api.NewClient(&api.Config{Address: front.URL, MaxRetries: 0})
	if err != nil {
		t.Fatal(err)
	}
	profiles, err := grant.LoadDeployed(templates.FS, grant.Rules{MaxTTL: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	return &setup{
		Options: Options{AuthMount: "aws", LoginMount: "aws", Deployment: "ours", RolePrefix: "ec2-provisioner", FunctionRoles: map[string]string{}, DryRun: true},
		vault:   client.Logical(), profiles: profiles, out: io.Discard, made: map[string]bool{}, looks: vault.Looks{Pause: time.Nanosecond},
	}, server
}

// without returns objects with another one at a path; nil for none.
func without(objects map[string]map[string]any, path string, other map[string]any) map[string]map[string]any {
	old := maps.Clone(objects)
	delete(old, path)
	if other != nil {
		old[path] = other
	}
	return old
}

func TestSetup_LooksAgainBeforeItRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		path  string
		older map[string]any
		reads int
	}{
		"alias settings from before --set-alias": {"auth/aws/config/identity", map[string]any{"ec2_alias": "image_id", "iam_alias": "role_id"}, 2},
		"an owner from before it was changed": {"sys/mounts", map[string]any{
			pkiMount + "/": map[string]any{"type": "pki", "description": grant.MountMark("another")},
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s, server := behind(t)
			server.FallBehind(row.reads, without(server.Objects, row.path, row.older))
			if err := s.apply(t.Context()); err != nil {
				t.Errorf("want no refusal for one read that was behind, got %v", err)
			}
			server.FallBehind(1000, without(server.Objects, row.path, row.older))
			if err := s.apply(t.Context()); err == nil {
				t.Error("want a refusal of what is so at every look")
			}
		})
	}
}

func TestSetup_MakesNoSecondRoot(t *testing.T) {
	s, server := behind(t)
	s.DryRun = false
	for _, reads := range []int{0, 1, 2} {
		server.FallBehind(reads, without(server.Objects, pkiMount+"/issuers/1", nil))
		if err := s.root(t.Context(), pkiMount); err != nil {
			t.Fatal(err)
		}
		if server.Objects[pkiMount+"/root/generate/internal"] != nil {
			t.Errorf("%d reads behind: a second root was made beside that of a moment ago", reads)
		}
	}
}

func TestSetup_TakesMountOfAMomentAgo(t *testing.T) {
	s, server := behind(t)
	s.DryRun = false
	server.FallBehind(1, without(server.Objects, "sys/auth", map[string]any{}))
	made, err := s.mount(t.Context(), "sys/auth", "aws", map[string]any{"type": "aws"})
	if made || err != nil {
		t.Errorf("want the existing mount found at the second look, got made %v, %v", made, err)
	}
}
