package cluster

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// productClient returns the functions' own client of one address, with the root token.
func productClient(t *testing.T, address string) *vault.Client {
	t.Helper()
	return vault.New(vault.Options{
		Addr: address, CA: func(context.Context) ([]byte, error) { return []byte(world.VaultCAPEM), nil },
		Login: vault.Token{Secret: func(context.Context) ([]byte, error) { return []byte(`{"token":"` + world.VaultToken + `"}`), nil }}.Login,
	})
}

func wantRetry(t *testing.T, err error) {
	t.Helper()
	if kind := fault.KindOf(err); kind != fault.Retry {
		t.Errorf("want every fault of an election to be retried, got kind %s: %v", kind, err)
	}
}

// asker sends every kind of request to one address and records the answers.
type asker struct {
	name   string
	client *vault.Client

	mu      sync.Mutex
	texts   map[string]int
	written map[string]bool // by path: whether the last acknowledged request wrote or deleted it; unknown ones are left out
	acked   int
}

// parts of an error that differ from one request to the next
var varying = regexp.MustCompile(`127\.0\.0\.1:\d+|[0-9a-f]{8}-[0-9a-f-]{27}|asked-\S+-\d+`)

func (a *asker) answered(t *testing.T, path string, exists bool, err error) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.acked++
		a.written[path] = exists
		return
	}
	delete(a.written, path)
	wantRetry(t, err)
	a.texts[varying.ReplaceAllString(err.Error(), "…")]++
}

// ask sends requests until ctx ends. Every object is new, and every second one is deleted.
func (a *asker) ask(ctx context.Context, t *testing.T) {
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("asked-%s-%d", a.name, n)
		objects := []struct {
			path   string
			fields map[string]any
		}{
			{"sys/policies/acl/" + name, map[string]any{"policy": `path "x" { capabilities = ["read"] }`}},
			{"alice_cluster/pki/k8s/roles/" + name, map[string]any{"allowed_domains": "x.example", "max_ttl": "1h"}},
			{"auth/aws/role/" + name, map[string]any{"auth_type": "ec2", "bound_account_id": "123456789012"}},
		}
		o := objects[n%len(objects)]
		// Only by its own deadline may a request end.
		call := context.WithoutCancel(ctx)
		_, err := a.client.Write(call, o.path, o.fields)
		a.answered(t, o.path, true, err)
		data, err := a.client.Read(call, o.path)
		a.mu.Lock()
		if err == nil && data == nil && a.written[o.path] {
			t.Errorf("%s was written, and then read as absent", o.path)
		}
		a.mu.Unlock()
		if err != nil {
			wantRetry(t, err)
		}
		if n%2 == 1 {
			a.answered(t, o.path, false, a.client.Delete(call, o.path))
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // a node that is down
		}
	}
}

func TestElection_AnswersAreRetriedAndNoWriteIsLost(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var askers []*asker
	var group sync.WaitGroup
	add := func(name, address string) {
		a := &asker{name: name, client: productClient(t, address), texts: map[string]int{}, written: map[string]bool{}}
		askers = append(askers, a)
		group.Go(func() { a.ask(ctx, t) })
	}
	for copies := range 2 {
		for _, n := range world.Cluster.Nodes {
			add(fmt.Sprint(n.Name(), "-", copies), n.Address())
		}
		add(fmt.Sprint("balancer-", copies), world.VaultAddr)
	}
	all := slices.Concat(losses, []loss{
		{"stopped", func(_ *testing.T, n *vaultserver.Node) error { return n.Stop() }},
		{"frozen", func(t *testing.T, n *vaultserver.Node) error { return n.Freeze(t.Context(), 4*time.Second) }},
	})
	for _, how := range all {
		leader, err := world.Cluster.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := how.strike(t, leader); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		restore(t)
	}
	stop()
	group.Wait()

	exists := map[string]bool{}
	for _, folder := range []string{"sys/policies/acl", "alice_cluster/pki/k8s/roles", "auth/aws/role"} {
		list, err := world.Vault.Logical().ListWithContext(t.Context(), folder)
		if err != nil || list == nil {
			t.Fatalf("listing %s: %v", folder, err)
		}
		keys, _ := list.Data["keys"].([]any)
		for _, key := range keys {
			exists[folder+"/"+fmt.Sprint(key)] = true
		}
	}
	acked, texts := 0, map[string]int{}
	for _, a := range askers {
		acked += a.acked
		for text, n := range a.texts {
			texts[text] += n
		}
		for path, want := range a.written {
			if exists[path] != want {
				t.Errorf("%s: Vault acknowledged that it exists: %v, and after the elections it does: %v", path, want, exists[path])
			}
		}
	}
	if acked == 0 || len(texts) == 0 {
		t.Errorf("want writes acknowledged and faults seen, got %d and %d", acked, len(texts))
	}
	var lines []string
	for _, text := range slices.Sorted(maps.Keys(texts)) {
		lines = append(lines, fmt.Sprintf("%5d %s", texts[text], text))
	}
	t.Logf("%d losses of the leader, %d writes and deletes acknowledged and none lost; the faults:\n%s", len(all), acked, strings.Join(lines, "\n"))
}
