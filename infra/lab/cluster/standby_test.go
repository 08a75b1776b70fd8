package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

// standby returns a standby and its leader.
func standby(t *testing.T) (standby, leader *vaultserver.Node) {
	t.Helper()
	others, err := world.Cluster.Standbys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leader, err = world.Cluster.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return others[0], leader
}

// throughALeadersDeath grants and removes by functions at a standby's address, kills the leader, and does it again.
func throughALeadersDeath(t *testing.T, l *lab.Line, leader *vaultserver.Node) {
	t.Helper()
	before, after := launch(t, 1)[0], launch(t, 1)[0]
	if again := deliver(t, l.Functions[provision], "running", before); len(again) > 0 {
		t.Fatalf("want the grant made at a standby\nlogs:\n%s", lastOf(l.Functions[provision].Logs()))
	}
	wantGranted(t, before)
	session := login(t, before)
	terminate(t, before)

	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	if again := deliver(t, l.Functions[deprovision], "terminated", before); len(again) == 0 {
		t.Log("the removal was done at once: the election was faster")
	} else {
		wantLoggedRetry(t, l.Functions[deprovision].Logs)
	}
	untilDone(t, l.Functions[provision], "running", after)
	untilDone(t, l.Functions[deprovision], "terminated", before)
	restore(t)
	wantGranted(t, after)
	wantGone(t, before, session)
}

// wantLoggedRetry waits for a fault of kind retry in a log: output reaches the lab a moment after the answer.
func wantLoggedRetry(t *testing.T, logs func() string) {
	t.Helper()
	const kind = `"kind":"`
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(logs(), kind); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("want the fault logged\nlogs:\n%s", lastOf(logs()))
			return
		}
	}
	if text := logs(); strings.Count(text, kind) != strings.Count(text, kind+"retry") {
		t.Errorf("want a standby without a leader to be retried\nlogs:\n%s", lastOf(text))
	}
}

func TestStandby_ForwardsGrantAndRemoval(t *testing.T) {
	restore(t)
	node, leader := standby(t)
	throughALeadersDeath(t, line(t, lab.LineOptions{Env: map[string]string{"VAULT_ADDR": node.Address()}}), leader)
}

func TestStandby_RedirectIsFollowed(t *testing.T) {
	restore(t)
	node, leader := standby(t)
	proxy, ca, redirects := withoutForwarding(t, node)
	secret, err := secretsmanager.NewFromConfig(world.AWS).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{
		Name: aws.String("vault-ca-redirects"), SecretString: aws.String(world.VaultCAPEM + ca),
	})
	if err != nil {
		t.Fatal(err)
	}
	throughALeadersDeath(t, line(t, lab.LineOptions{Env: map[string]string{
		"VAULT_ADDR": proxy, "VAULT_CA_SECRET_ARN": aws.ToString(secret.ARN),
	}}), leader)
	if redirects.Load() == 0 {
		t.Error("the standby redirected no request, so the test proves nothing")
	}
	t.Logf("%d redirects of a standby", redirects.Load())
}

// withoutForwarding starts a proxy before a node that asks it not to forward, so that a standby redirects to its leader.
// https://developer.hashicorp.com/vault/docs/concepts/ha#client-redirection
func withoutForwarding(t *testing.T, n *vaultserver.Node) (address, ca string, redirects *atomic.Int64) {
	t.Helper()
	serving, ca, err := tap.LoopbackTLS()
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(n.Address())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(world.VaultCAPEM))
	redirects = &atomic.Int64{}
	s := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set("X-Vault-No-Request-Forwarding", "true")
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: (&net.Dialer{}).DialContext},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusTemporaryRedirect {
				redirects.Add(1)
			}
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0),
	})
	s.TLS = serving
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, ca, redirects
}

func TestCommittedWrite_WithItsAnswerLostIsFound(t *testing.T) {
	restore(t)
	l := line(t, lab.LineOptions{})
	i := launch(t, 1)[0]
	role := "auth/" + world.AuthMount + "/role/" + i.ID
	l.Taps.Vault.SetFault(func(c tap.Call) *tap.Fault {
		if isWrite(c) && strings.HasSuffix(c.Path, role) {
			return &tap.Fault{CutAfter: true}
		}
		return nil
	})
	if again := deliver(t, l.Functions[provision], "running", i); len(again) == 0 {
		t.Fatal("want the message back when Vault's answer was lost: nothing says that the write was made")
	}
	l.Taps.Vault.SetFault(nil)
	leader, err := world.Cluster.Leader(t.Context())
	if err == nil {
		err = leader.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := world.Cluster.LeaderAfter(context.WithoutCancel(t.Context()), leader); err != nil {
		t.Fatal(err)
	}
	labtest.ExpireLease(t, world, i.ID)
	l.Reset()
	untilDone(t, l.Functions[provision], "running", i)
	restore(t)
	wantGranted(t, i)
	secret, err := world.Vault.Logical().ReadWithContext(t.Context(), role)
	if err != nil || secret == nil {
		t.Errorf("want the write that the former leader committed, got %v, %v", secret, err)
	}
}
