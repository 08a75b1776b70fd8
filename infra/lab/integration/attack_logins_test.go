package integration

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
	"github.com/smallstep/pkcs7"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

func signed(t *testing.T, f *fleet.Fleet, i fleet.Instance) string {
	t.Helper()
	document, err := f.PKCS7(i)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// isRefused fails unless err is Vault's own refusal.
func isRefused(t *testing.T, what string, err error) {
	t.Helper()
	var answer *vaultapi.ResponseError
	// Vault answers an invalid document with 500, and a version more of them than another.
	document := err != nil && slices.ContainsFunc([]string{"verify the signature", "RSA signature", "PKCS#7", "identity document"}, func(about string) bool {
		return strings.Contains(err.Error(), about)
	})
	if !errors.As(err, &answer) || answer.StatusCode < 400 || (answer.StatusCode >= 500 && !document) {
		t.Errorf("%s: want Vault's refusal, got %v: a caller that gets in is that instance to Vault", what, err)
	}
}

func TestLogin_NeedsTheInstancesLiveDocument(t *testing.T) {
	mine, other, abroad := provisioned(t), provisioned(t), launch(t, fleet.Spec{Role: "alice-worker", AccountID: "666677778888"})
	must(t, provision, abroad, "running", "provisioned")
	vaultSet(t, "auth/aws/config/sts/"+abroad.AccountID, map[string]any{"sts_role": "arn:aws:iam::" + abroad.AccountID + ":role/lab"})
	forger, err := fleet.New(fleet.Options{}) // a certificate with the same name and serial number and another key
	if err != nil {
		t.Fatal(err)
	}
	genuine := signed(t, world.Fleet, other)
	der, err := base64.StdEncoding.DecodeString(genuine)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(other.ID, mine.ID, other.PrivateIP, mine.PrivateIP).Replace(string(der))
	if text == string(der) {
		t.Fatal("the signed document does not contain the instance ID in the clear: the forgery below would change nothing")
	}
	swapped := base64.StdEncoding.EncodeToString([]byte(text))
	unsigned := func(detach bool) string {
		data, err := pkcs7.NewSignedData(world.Fleet.Document(mine))
		if err != nil {
			t.Fatal(err)
		}
		if detach {
			data.Detach()
		}
		der, err := data.Finish()
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(der)
	}
	plain := base64.StdEncoding.EncodeToString(world.Fleet.Document(mine))
	unknown := mine
	unknown.ID = "i-0fffffffffffffff0"
	for name, row := range map[string]struct {
		from   fleet.Instance
		fields map[string]any
	}{
		"another's document, from another's address":       {other, map[string]any{"role": mine.ID, "pkcs7": genuine}},
		"another's document, from this address":            {mine, map[string]any{"role": mine.ID, "pkcs7": genuine}},
		"this document for another's role":                 {mine, map[string]any{"role": other.ID, "pkcs7": signed(t, world.Fleet, mine)}},
		"this document for another's role, from there":     {other, map[string]any{"role": other.ID, "pkcs7": signed(t, world.Fleet, mine)}},
		"this document for this role, from elsewhere":      {other, map[string]any{"role": mine.ID, "pkcs7": signed(t, world.Fleet, mine)}},
		"a document from another account":                  {mine, map[string]any{"role": mine.ID, "pkcs7": signed(t, world.Fleet, abroad)}},
		"this document for another account's role":         {abroad, map[string]any{"role": abroad.ID, "pkcs7": signed(t, world.Fleet, mine)}},
		"this document for a function's role":              {mine, map[string]any{"role": "ec2-provisioner-provision", "pkcs7": signed(t, world.Fleet, mine)}},
		"no role":                                          {mine, map[string]any{"pkcs7": signed(t, world.Fleet, mine)}},
		"an unknown instance for its own role":             {mine, map[string]any{"role": unknown.ID, "pkcs7": signed(t, world.Fleet, unknown)}},
		"an unknown instance for this role":                {mine, map[string]any{"role": mine.ID, "pkcs7": signed(t, world.Fleet, unknown)}},
		"this document signed by another key":              {mine, map[string]any{"role": mine.ID, "pkcs7": signed(t, forger, mine)}},
		"a forged document in a genuine signature":         {mine, map[string]any{"role": mine.ID, "pkcs7": swapped}},
		"this document without a signer":                   {mine, map[string]any{"role": mine.ID, "pkcs7": unsigned(false)}},
		"nothing, without a signer":                        {mine, map[string]any{"role": mine.ID, "pkcs7": unsigned(true)}},
		"this document in the clear with a genuine PKCS 7": {mine, map[string]any{"role": mine.ID, "identity": plain, "signature": genuine}},
		"this document in the clear alone":                 {mine, map[string]any{"role": mine.ID, "identity": plain}},
		"this document in the clear, an empty signature":   {mine, map[string]any{"role": mine.ID, "identity": plain, "signature": ""}},
		"this document in the clear beside another's":      {mine, map[string]any{"role": mine.ID, "identity": plain, "pkcs7": genuine}},
		"no document":             {mine, map[string]any{"role": mine.ID}},
		"no document and a nonce": {mine, map[string]any{"role": mine.ID, "nonce": "n"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := world.Fleet.LoginWith(t.Context(), "aws", row.from, row.fields)
			isRefused(t, "the login", err)
		})
	}
	for _, i := range []fleet.Instance{mine, other, abroad} {
		if _, err := world.Fleet.Login(t.Context(), "aws", i, ""); err != nil {
			t.Errorf("%s must still log in afterwards, or the refusals prove nothing and an attacker could lock it out: %v", i.ID, err)
		}
	}
}

func TestLogin_RepeatNeedsNonceAndLatestDocument(t *testing.T) {
	i := provisioned(t)
	early := signed(t, world.Fleet, i)
	first := login(t, i)
	login := func(document string, nonce any) error {
		fields := map[string]any{"role": i.ID, "pkcs7": document}
		if nonce != nil {
			fields["nonce"] = nonce
		}
		_, err := world.Fleet.LoginWith(t.Context(), "aws", i, fields)
		return err
	}
	isRefused(t, "a second login with another nonce", login(early, "another"))
	isRefused(t, "a second login without a nonce", login(early, nil))
	isRefused(t, "a second login with an empty list for a nonce", login(early, []string{}))
	isRefused(t, "a second login with the nonce and more", login(early, first.Nonce+" "))
	if err := login(early, first.Nonce); err != nil {
		t.Errorf("a second login with the nonce: %v", err)
	}

	if err := world.Fleet.Stop(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	isRefused(t, "the login of a stopped instance", login(early, first.Nonce))
	_, err := first.Client.Auth().Token().RenewSelfWithContext(t.Context(), 3600)
	if err == nil {
		t.Error("the token of a stopped instance was renewed")
	}
	time.Sleep(1100 * time.Millisecond) // a document's time is in whole seconds
	if err := world.Fleet.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if _, err := world.Fleet.Refresh(t.Context(), i); err != nil { // moto sets it to running when it is described
		t.Fatal(err)
	}
	late := signed(t, world.Fleet, i)
	isRefused(t, "a document after a restart without the nonce", login(late, nil))
	if err := login(late, first.Nonce); err != nil {
		t.Errorf("the login after a restart: %v", err)
	}
	isRefused(t, "the document from before the restart", login(early, first.Nonce))

	terminate(t, i)
	isRefused(t, "the login of a terminated instance whose role still exists", login(late, first.Nonce))
	fresh := provisioned(t)
	terminate(t, fresh)
	_, err = world.Fleet.Login(t.Context(), "aws", fresh, "")
	isRefused(t, "the first login of a terminated instance whose role still exists", err)
}

func TestToken_FailsFromAnotherAddress(t *testing.T) {
	me, other := join(t), provisioned(t)
	for name, from := range map[string]fleet.Instance{"another instance": other, "the host": {}} {
		client := clientOn(t, from, me.session.Token())
		for _, r := range []request{
			{method: http.MethodGet, path: "auth/token/lookup-self"},
			{path: "auth/token/renew-self", body: "{}"},
			{path: k8s + "/issue/" + me.kubelet.role, body: `{"common_name":"` + me.kubelet.cn + `"}`},
			{method: http.MethodGet, path: "auth/token/lookup-self", header: map[string]string{"X-Forwarded-For": me.PrivateIP, "X-Real-IP": me.PrivateIP, "Forwarded": "for=" + me.PrivateIP}},
		} {
			if status, body := send(t, client, r); status != http.StatusForbidden {
				t.Errorf("%s from %s: want 403, got %d %.200s: a stolen token must not work elsewhere", r.path, name, status, body)
			}
		}
	}
	if _, err := me.session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err != nil {
		t.Errorf("from its own address: %v", err)
	}
}

// goneToFunctions makes EC2 report an instance as terminated to the functions, while moto still shows it to Vault as
// running, so that Vault would let it log in until the end.
func goneToFunctions(t *testing.T, i fleet.Instance) {
	t.Helper()
	faultOn(t, world.Taps.AWS, xml(fmt.Sprintf(`<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>x</requestId><reservationSet><item>`+
		`<reservationId>r-1</reservationId><ownerId>%s</ownerId><groupSet/><instancesSet><item><instanceId>%s</instanceId>`+
		`<instanceState><code>48</code><name>terminated</name></instanceState></item></instancesSet></item></reservationSet></DescribeInstancesResponse>`, i.AccountID, i.ID)),
		func(c tap.Call) bool {
			return c.Action == "DescribeInstances" && strings.Contains(string(c.Body), i.ID)
		})
}

// racing logs in continuously on several goroutines until stop is called. stop returns the tokens that Vault issued.
func racing(t *testing.T, i fleet.Instance) (stop func() map[string]string) {
	t.Helper()
	const racers = 4
	document := signed(t, world.Fleet, i)
	var mu sync.Mutex
	var group sync.WaitGroup
	tokens, ended := map[string]string{}, make(chan struct{})
	for n := range racers {
		group.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-ended:
					return
				default:
				}
				begun := time.Now()
				s, err := world.Fleet.LoginWith(t.Context(), "aws", i, map[string]any{"role": i.ID, "pkcs7": document, "nonce": "the same for all"})
				if err != nil {
					continue
				}
				mu.Lock()
				tokens[fmt.Sprintf("login %d of racer %d, from %s to %s", k, n, begun.Format("05.000"), time.Now().Format("05.000"))] = s.Token()
				mu.Unlock()
			}
		})
	}
	return func() map[string]string {
		close(ended)
		group.Wait()
		return tokens
	}
}

func TestRemoval_EndsEveryRacingLogin(t *testing.T) {
	const rounds = 40
	granted, settled := 0, 0
	var working, revived, left []string
	for round := range rounds {
		i := provisioned(t)
		goneToFunctions(t, i)
		stop := racing(t, i)
		time.Sleep(time.Duration(round%8) * 5 * time.Millisecond) // the removal meets logins at every stage
		a := sendEvent(t, deprovision, i, "terminated")
		tokens := stop()
		if strings.Contains(a.Failure, converge.ErrUnfinished.Error()) {
			settled++
			afterTheQuiet(t, i)
			a = sendEvent(t, deprovision, i, "terminated")
		}
		if a.Action != "deprovisioned" {
			t.Fatalf("got %+v", a)
		}
		if r := recordOf(t, i); r.State != ledger.Deleted {
			t.Fatalf("want the record deleted, got %+v", r)
		}
		world.Taps.AWS.SetFault(nil)
		granted += len(tokens)
		add := func(list *[]string, found []string) {
			if len(found) > 0 {
				*list = append(*list, fmt.Sprintf("round %d: %s", round, strings.Join(found, "; ")))
			}
		}
		add(&working, alive(t, i, tokens))
		add(&left, objects(t, i))
		forget := remake(t, i)
		add(&revived, alive(t, i, tokens))
		forget()
	}
	t.Logf("%d rounds: Vault granted %d logins during the removals; in %d rounds a removal saw a late login and ran a second time", rounds, granted, settled)
	if granted < rounds {
		t.Errorf("want at least one login granted in a round on average, got %d in %d: nothing raced", granted, rounds)
	}
	if len(working) > 0 {
		t.Errorf("in %d of %d rounds a token still looked itself up or got a certificate after `deleted` was recorded, so it outlives its instance. The first: %.700s",
			len(working), rounds, working[0])
	}
	// If the auth role has only the instance's own policies, the removal does not wait for a login that ends even later: its
	// token has no power unless a policy of that name is made by hand. SECURITY.md says so.
	t.Logf("such logins left something in %d rounds, always without power; in %d rounds a policy made by hand under the old name would give them power", len(left), len(revived))
}

// afterTheQuiet sets the record's quiet time to the past, when no login can be in flight.
func afterTheQuiet(t *testing.T, i fleet.Instance) {
	t.Helper()
	r := recordOf(t, i)
	if r.State != ledger.Deprovisioning || r.QuietUntil == nil || time.Until(*r.QuietUntil) < 80*time.Second {
		t.Fatalf("want the record to wait out Vault's longest request, got %+v", r)
	}
	setRecord(t, i.ID, map[string]string{"quiet_until": time.Now().Add(-time.Second).UTC().Format(time.RFC3339)})
}

// TestRemoval_EndsLoginUnderWay fixes the timing of the race: EC2's answer to Vault, that the instance runs,
// is held back until the removal is recorded. The profile also grants a policy that is not the instance's own and remains
// when the instance's policies are deleted.
func TestRemoval_EndsLoginUnderWay(t *testing.T) {
	slow, err := tap.Start(tap.Options{Upstream: world.MotoURL})
	if err != nil {
		t.Fatal(err)
	}
	labtest.CloseLater(t, slow)
	vaultWrite(t, "sys/policies/acl/lab-extra", map[string]any{"policy": "path \"auth/token/lookup-self\" {\n capabilities = [\"read\"]\n}\n"})
	templates := changed(t, "worker/profile.yaml", "extra_policies: []", "extra_policies: [lab-extra]")
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, variant(t, provision, map[string]string{"TEMPLATES_DIR": templates}), i, "running", "provisioned")
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow.SetFault(func(c tap.Call) *tap.Fault {
		if c.Action == "DescribeInstances" {
			once.Do(func() { close(asked) })
			<-release
		}
		return nil
	})
	vaultSet(t, "auth/aws/config/client", map[string]any{"endpoint": slow.URL})
	tokens, answered := map[string]string{}, make(chan error, 1)
	go func() {
		s, err := world.Fleet.Login(t.Context(), "aws", i, "")
		if err == nil {
			tokens["the late login"] = s.Token()
		}
		answered <- err
	}()
	select {
	case <-asked:
	case err := <-answered:
		t.Fatalf("the login ended before Vault called EC2: %v", err)
	}
	goneToFunctions(t, i)
	if a := sendEvent(t, deprovision, i, "terminated"); !strings.Contains(a.Failure, converge.ErrUnfinished.Error()) {
		t.Fatalf("want the removal to wait for logins in flight, got %+v", a)
	}
	close(release)
	if err := <-answered; err != nil {
		t.Logf("Vault refused the login: %v", err)
	}
	afterTheQuiet(t, i)
	must(t, deprovision, i, "terminated", "deprovisioned")
	if works := alive(t, i, tokens); len(works) > 0 {
		t.Errorf("after `deleted` was recorded: %s: a login in flight during the removal outlives the instance", strings.Join(works, "; "))
	}
	if left := objects(t, i); len(left) > 0 {
		t.Errorf("after `deleted` was recorded %v still exists: nothing will ever remove it", left)
	}
}
