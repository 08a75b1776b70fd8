package integration

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// alive returns the tokens that still work, with the request that succeeded: a look-up of itself, or a certificate.
func alive(t *testing.T, i fleet.Instance, tokens map[string]string) []string {
	t.Helper()
	var out []string
	for name, token := range tokens {
		client := clientOn(t, i, token)
		for _, r := range []request{
			{method: http.MethodGet, path: "auth/token/lookup-self"},
			{path: k8s + "/issue/" + i.ID + "-kubelet", body: `{"common_name":"system:node:` + i.PrivateDNS + `"}`},
		} {
			if status, body := send(t, client, r); status != http.StatusForbidden {
				out = append(out, fmt.Sprintf("%s: %s returned %d %.80s", name, r.path, status, body))
			}
		}
	}
	return out
}

// remake makes a policy with the name of the instance's policy. It revives a token that only lacks its policy, and not one
// that is cut.
func remake(t *testing.T, i fleet.Instance) (back func()) {
	t.Helper()
	path := pathsOf(i.ID).policy
	vaultWrite(t, path, map[string]any{
		"policy": fmt.Sprintf("path \"auth/token/lookup-self\" {\n capabilities = [\"read\"]\n}\npath \"%s/issue/*\" {\n capabilities = [\"update\"]\n}\n", k8s),
	})
	control := tokenWith(t, strings.TrimPrefix(path, "sys/policies/acl/"))
	if len(alive(t, i, map[string]string{"control": control})) != 2 {
		t.Error("a new token with the remade policy can do nothing, so it proves nothing that old ones cannot either")
	}
	return func() { vaultDelete(t, path) }
}

// tokenWith returns a token with one policy, and not the default policy.
func tokenWith(t *testing.T, policy string) string {
	t.Helper()
	made, err := world.Vault.Auth().Token().CreateWithContext(t.Context(), &vaultapi.TokenCreateRequest{Policies: []string{policy}, NoParent: true, NoDefaultPolicy: true, TTL: "5m"})
	if err != nil {
		t.Fatal(err)
	}
	return made.Auth.ClientToken
}

// everyToken gets tokens of an instance in every way that Vault has. wrapped holds wrapping tokens.
func everyToken(t *testing.T, i fleet.Instance) (tokens, wrapped map[string]string, entity string) {
	t.Helper()
	tokens, wrapped = map[string]string{}, map[string]string{}
	first := login(t, i)
	login := func(name string) *fleet.Session {
		t.Helper()
		s, err := world.Fleet.Login(t.Context(), "aws", i, first.Nonce)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tokens[name] = s.Token()
		return s
	}
	create := func(name string, by *vaultapi.Client, r vaultapi.TokenCreateRequest) string {
		t.Helper()
		made, err := by.Auth().Token().CreateWithContext(t.Context(), &r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tokens[name] = made.Auth.ClientToken
		return made.Auth.ClientToken
	}
	tokens["the first service token"] = first.Token()
	login("a second service token")
	renewed := login("a renewed token")
	if _, err := renewed.Client.Auth().Token().RenewSelfWithContext(t.Context(), 1800); err != nil {
		t.Fatal(err)
	}
	child := create("a child token", first.Client, vaultapi.TokenCreateRequest{TTL: "30m"})
	client := clientOn(t, i, child)
	create("a child's child", client, vaultapi.TokenCreateRequest{DisplayName: "x"})
	create("a batch token made by a service token", first.Client, vaultapi.TokenCreateRequest{Type: "batch", TTL: "30m"})
	create("a child token with few uses", first.Client, vaultapi.TokenCreateRequest{NumUses: 50})

	wrap := func(name, path string, fields map[string]any) {
		t.Helper()
		c := clientOn(t, i, first.Token())
		c.SetWrappingLookupFunc(func(string, string) string { return "300s" })
		out, err := c.Logical().WriteWithContext(t.Context(), path, fields)
		if err != nil || out == nil || out.WrapInfo == nil {
			t.Fatalf("%s: %+v, %v", name, out, err)
		}
		wrapped[name] = out.WrapInfo.Token
	}
	wrap("a wrapped login", "auth/aws/login", map[string]any{"role": i.ID, "pkcs7": signed(t, world.Fleet, i), "nonce": first.Nonce})
	wrap("a wrapped child token", "auth/token/create", map[string]any{"ttl": "30m"})

	vaultWrite(t, "auth/aws/role/"+i.ID, map[string]any{"token_type": "batch"})
	batch, err := login("a batch token").Client.Auth().Token().LookupSelfWithContext(t.Context())
	if err != nil || batch.Data["type"] != "batch" {
		t.Fatalf("want a batch token, got one of type %v, %v", batch.Data["type"], err)
	}
	return tokens, wrapped, first.Auth.EntityID
}

func TestRemoval_EndsEveryTokenAtOnce(t *testing.T) {
	i := provisioned(t)
	p := pathsOf(i.ID) // its policy may make child tokens, as if edited by hand
	vaultWrite(t, p.policy, map[string]any{
		"policy": fmt.Sprint(vaultRead(t, p.policy)["policy"], "\npath \"auth/token/create\" {\n  capabilities = [\"create\", \"update\"]\n}\n"),
	})
	tokens, wrapped, entity := everyToken(t, i)
	if entity == "" {
		t.Fatal("the login made no entity, so there is nothing to cut")
	}
	neighbour := join(t)
	for name, token := range tokens {
		if n := len(alive(t, i, map[string]string{name: token})); n != 2 {
			t.Fatalf("%s works on %d of 2 paths before the removal, so its failure afterwards would prove nothing", name, n)
		}
	}
	remove(t, i)

	for name, token := range wrapped {
		client := clientOn(t, i, token)
		// The wrapping token belongs to no entity. The wrapped token counts.
		out, err := client.Logical().UnwrapWithContext(t.Context(), token)
		if err != nil {
			t.Logf("%s: unwrapping is refused: %v", name, err)
			continue
		}
		tokens[name+", unwrapped after the removal"] = out.Auth.ClientToken
	}
	if len(tokens) < 10 {
		t.Errorf("want the unwrapped tokens among those tried, got %d tokens", len(tokens))
	}
	for _, works := range alive(t, i, tokens) {
		t.Errorf("after the removal, %s: want 403: an attacker keeps the instance's access", works)
	}
	back := remake(t, i)
	for _, works := range alive(t, i, tokens) {
		t.Errorf("with a remade policy of the same name, %s: want 403: the token only lacked its policy and was not cut", works)
	}
	for name, token := range tokens {
		client := clientOn(t, i, token)
		for _, path := range []string{"auth/token/renew-self", "auth/token/create"} {
			if status, body := send(t, client, request{path: path, body: "{}"}); status != http.StatusForbidden {
				t.Errorf("%s, %s: want 403, got %d %.200s", name, path, status, body)
			}
		}
	}
	back()
	nothingLeft(t, i, entity)
	if len(alive(t, neighbour.Instance, map[string]string{"neighbour": neighbour.session.Token()})) != 2 {
		t.Error("the removal also cut the neighbour's token")
	}
}

// nothingLeft checks with the root token that a removal left nothing.
func nothingLeft(t *testing.T, i fleet.Instance, entity string) {
	t.Helper()
	if left := objects(t, i); len(left) > 0 {
		t.Errorf("want nothing with the instance's ID left in Vault, got %v", left)
	}
	for _, path := range []string{"identity/entity/id/" + entity, "auth/aws/identity-accesslist/" + i.ID, "auth/aws/role/" + i.ID} {
		if got := vaultRead(t, path); got != nil {
			t.Errorf("want nothing at %s, got %+v: an old token or login could use it", path, got)
		}
	}
	list, err := world.Vault.Logical().ListWithContext(t.Context(), "identity/entity-alias/id")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := json.Marshal(list.Data); err != nil || strings.Contains(string(all), entity) || strings.Contains(string(all), i.ID) {
		t.Errorf("want no alias of entity %s or instance %s, got %s, %v", entity, i.ID, all, err)
	}
}

// setUp runs the setup of Vault with more flags, and without them when the test ends.
func setUp(t *testing.T, more ...string) {
	t.Helper()
	run := func(more ...string) {
		t.Helper()
		if out, err := world.VaultSetup(context.WithoutCancel(t.Context()), more...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	run(more...)
	t.Cleanup(func() { run() })
}

func TestRevocation_ReachesTheCRL(t *testing.T) {
	setUp(t, "-revoke-certificates")
	templates := changed(t, "worker/kubelet.json.tmpl", `"key_type"`, `"generate_lease": true, "key_type"`)
	function := variant(t, provision, map[string]string{"TEMPLATES_DIR": templates})
	serials := func(i fleet.Instance) map[string]*big.Int {
		t.Helper()
		mustBy(t, function, i, "running", "provisioned")
		session := login(t, i)
		found := map[string]*big.Int{}
		for op, fields := range map[string]map[string]any{
			"issue": {"common_name": "system:node:" + i.PrivateDNS},
			"sign":  {"common_name": "system:node:" + i.PrivateDNS, "csr": csr(t, &x509.CertificateRequest{})},
		} {
			status, body := send(t, session.Client, request{path: k8s + "/" + op + "/" + i.ID + "-kubelet", body: text(t, fields)})
			var answer struct{ Data struct{ Certificate string } }
			if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK {
				t.Fatalf("%s: %d %s, %v", op, status, body, err)
			}
			found[op] = certificate(t, answer.Data.Certificate).SerialNumber
		}
		return found
	}
	gone, stays := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"})
	revoked, good := serials(gone), serials(stays)
	terminate(t, gone)
	mustBy(t, variant(t, deprovision, map[string]string{"REVOKE_CERTIFICATES": "true"}), gone, "terminated", "deprovisioned")

	on := onCRL(t)
	for op, serial := range revoked {
		if !on[serial.String()] {
			t.Errorf("the certificate of %s (serial %x) is not on the CRL of %d entries: its key still passes for the instance", op, serial, len(on))
		}
	}
	for op, serial := range good {
		if on[serial.String()] {
			t.Errorf("the certificate of %s of a running instance (serial %x) is on the CRL", op, serial)
		}
	}
}

// onCRL returns the serial numbers on the CRL of the workers' PKI mount. It reads them without a token, as a verifier does.
func onCRL(t *testing.T) map[string]bool {
	t.Helper()
	client := clientOn(t, fleet.Instance{}, "")
	_, der := send(t, client, request{method: http.MethodGet, path: k8s + "/crl", anonymous: true})
	_, ca := send(t, client, request{method: http.MethodGet, path: k8s + "/ca/pem", anonymous: true})
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatalf("reading the CRL: %v", err)
	}
	if err := list.CheckSignatureFrom(certificate(t, string(ca))); err != nil {
		t.Errorf("the CRL's signature: %v", err)
	}
	on := map[string]bool{}
	for _, entry := range list.RevokedCertificateEntries {
		on[entry.SerialNumber.String()] = true
	}
	return on
}

func certificate(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("want a certificate in PEM, got %.100s", fmt.Sprint(text))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
