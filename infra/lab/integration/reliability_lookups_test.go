package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// askMoto sends moto a call with its form changed and returns the answer as a fault.
func askMoto(t *testing.T, c tap.Call, change func(url.Values)) *tap.Fault {
	t.Helper()
	form, err := url.ParseQuery(string(c.Body))
	if err != nil {
		t.Error(err)
		return nil
	}
	change(form)
	request, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, world.MotoURL, strings.NewReader(form.Encode()))
	if err != nil {
		t.Error(err)
		return nil
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIALAB/20260101/"+c.Region+"/ec2/aws4_request, SignedHeaders=host, Signature=x")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("calling moto: %s %s, %v", answer.Status, body, err)
	}
	return &tap.Fault{Status: answer.StatusCode, Header: http.Header{"Content-Type": {"text/xml"}}, Body: body}
}

// without replaces an ID in a form by another ID that is already in it.
func without(id, other string) func(url.Values) {
	return func(form url.Values) {
		for key, values := range form {
			if values[0] == id {
				form.Set(key, other)
			}
		}
	}
}

func TestPartialEC2Answer_RetriesOnlyTheMissing(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision}})
	shown, hidden := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"})
	bodies := [][]byte{fleet.Event(shown, "running", time.Now()), fleet.Event(hidden, "running", time.Now())}
	l.SetFault(func(c tap.Call) *tap.Fault {
		if c.Action == "DescribeInstances" {
			return askMoto(t, c, without(hidden.ID, shown.ID))
		}
		return nil
	})
	if again, _ := labtest.Deliver(t, l.Functions[provision], bodies...); !slices.Equal(again, []int{1}) {
		t.Errorf("want back only the message of the instance that EC2 omitted, got %v\nlogs:\n%s", again, lastOf(l.Functions[provision].Logs()))
	}
	wantGranted(t, shown)
	if left := objects(t, hidden); len(left) > 0 {
		t.Errorf("want nothing made for an instance that EC2 does not show, got %q", left)
	}
	l.SetFault(nil)
	untilDone(t, l.Functions[provision], hidden, bodies[1])
	wantGranted(t, hidden)
}

func TestEmptyEC2Page_IsNotTheEnd(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision}})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	var pages atomic.Int64
	l.SetFault(func(c tap.Call) *tap.Fault {
		if c.Action != "DescribeInstances" {
			return nil
		}
		pages.Add(1)
		if !strings.Contains(string(c.Body), "NextToken") {
			empty := xml(strings.Replace(noInstances, "<reservationSet/>", "<reservationSet/><nextToken>next</nextToken>", 1))
			return &empty
		}
		return askMoto(t, c, func(form url.Values) { form.Del("NextToken") })
	})
	if again, _ := labtest.Deliver(t, l.Functions[provision], fleet.Event(i, "running", time.Now())); len(again) > 0 || pages.Load() != 2 {
		t.Errorf("want both pages read and the instance granted at once, got %d pages, %v\nlogs:\n%s", pages.Load(), again, lastOf(l.Functions[provision].Logs()))
	}
	wantGranted(t, i)
}

func TestTermination_WaitsUntilEC2ShowsIt(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{deprovision}})
	i := provisioned(t)
	body := fleet.Event(i, "terminated", time.Now())
	if again, _ := labtest.Deliver(t, l.Functions[deprovision], body); !slices.Equal(again, []int{0}) {
		t.Error("want the event kept while EC2 still shows the instance running: no other event will report its end")
	}
	wantGranted(t, i)
	terminate(t, i)
	untilDone(t, l.Functions[deprovision], i, body)
	wantGone(t, i)
}

func TestNewCA_IsTrustedWithoutNewSandbox(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision}})
	f, client := l.Functions[provision], secretsmanager.NewFromConfig(world.AWS)
	hold := func(ca string) {
		t.Helper()
		if _, err := client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: &l.CASecretARN, SecretString: &ca}); err != nil {
			t.Fatal(err)
		}
	}
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	body := fleet.Event(i, "running", time.Now())
	hold(world.Fleet.CertificatePEM()) // a CA, but not that of Vault's certificate
	if again, _ := labtest.Deliver(t, f, body); len(again) != 1 {
		t.Fatal("want the message back while Vault's certificate is from an unknown CA")
	}
	if kind := kindLogged(t, f.Logs, i.ID); kind != retry {
		t.Errorf("want kind retry, got %s", kind)
	}
	nothingHalfMade(t, i)
	for _, c := range l.Taps.Vault.Calls() {
		t.Errorf("%s was sent to a Vault with an untrusted certificate", c.Action)
	}
	hold(l.CAPEM)
	untilDone(t, f, i, body)
	wantGranted(t, i)
	if n := f.ColdStarts(); n != 1 {
		t.Errorf("want the same sandbox to read the secret again, got %d cold starts", n)
	}
}

// cutFunctions deletes the entity of a login role of the functions, which revokes all of their tokens.
func cutFunctions(t *testing.T, role string) {
	t.Helper()
	id := vaultRead(t, "auth/"+world.AuthMount+"/role/"+role)["role_id"]
	mounts := vaultRead(t, "sys/auth")
	mount, _ := mounts[world.AuthMount+"/"].(map[string]any)
	found, err := world.Vault.Logical().WriteWithContext(t.Context(), "identity/lookup/entity", map[string]any{"alias_name": id, "alias_mount_accessor": mount["accessor"]})
	if err != nil || found == nil {
		t.Fatalf("the entity of the functions of %s: %v, %v", role, found, err)
	}
	vaultDelete(t, fmt.Sprint("identity/entity/id/", found.Data["id"]))
}

func TestRevokedToken_CostsOneLoginNoMessage(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision, deprovision}})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	logins := func() int {
		n := 0
		for _, c := range l.Taps.Vault.Calls() {
			if strings.HasSuffix(c.Path, "/login") {
				n++
			}
		}
		return n
	}
	untilDone(t, l.Functions[provision], i, fleet.Event(i, "running", time.Now()))
	other := launch(t, fleet.Spec{Role: "alice-worker"})
	cutFunctions(t, "ec2-provisioner-provision")
	l.Reset()
	if again, _ := labtest.Deliver(t, l.Functions[provision], fleet.Event(other, "running", time.Now())); len(again) > 0 {
		t.Errorf("want a revoked token replaced within the delivery\nlogs:\n%s", lastOf(l.Functions[provision].Logs()))
	}
	if n := logins(); n != 1 {
		t.Errorf("want one login after the revocation, however many calls were refused, got %d", n)
	}
	wantGranted(t, other)

	terminate(t, i, other)
	untilDone(t, l.Functions[deprovision], i, fleet.Event(i, "terminated", time.Now()))
	cutFunctions(t, "ec2-provisioner-deprovision")
	l.Reset()
	if again, _ := labtest.Deliver(t, l.Functions[deprovision], fleet.Event(other, "terminated", time.Now())); len(again) > 0 {
		t.Errorf("a removal: want a revoked token replaced within the delivery\nlogs:\n%s", lastOf(l.Functions[deprovision].Logs()))
	}
	if n := logins(); n != 1 {
		t.Errorf("a removal: want one login, got %d", n)
	}
	wantGone(t, i)
	wantGone(t, other)
}
