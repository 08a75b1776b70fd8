package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// variant returns a deployed function with some of its environment variables changed.
func variant(t *testing.T, function string, change map[string]string) *sandbox.Function {
	t.Helper()
	return labtest.Variant(t, world, function, change)
}

// changed returns a folder with the lab's profiles after one replacement of text in one file.
func changed(t *testing.T, file, old, with string) string {
	t.Helper()
	return edited(t, [3]string{file, old, with})
}

// secret creates a secret in Secrets Manager and returns its ARN.
func secret(t *testing.T, name, text string) string {
	t.Helper()
	out, err := secretsmanager.NewFromConfig(world.AWS).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: &name, SecretString: &text})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.ARN)
}

func TestBadEvent_IsAcknowledgedAndLogged(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	good := string(fleet.Event(i, "running", time.Now()))
	for name, row := range map[string]struct{ body, says string }{
		"a body that is not JSON":         {"{", "reading the event"},
		"an unknown detail-type":          {strings.Replace(good, "EC2 Instance State-change Notification", "EC2 Spot Interruption", 1), "EC2 Spot Interruption"},
		"an unknown state":                {strings.Replace(good, `"state":"running"`, `"state":"hibernating"`, 1), "hibernating"},
		"an invalid instance ID":          {strings.Replace(good, `"instance-id":"i-`, `"instance-id":"x-`, 1), "not the ID of an EC2 instance"},
		"an invalid account ID":           {strings.Replace(good, world.AccountID, "12", 1), "not an account ID"},
		"an empty body, which SQS allows": {"", "reading the event"},
	} {
		t.Run(name, func(t *testing.T) {
			if again := batch(t, []byte(row.body), []byte(good)); len(again) != 0 {
				t.Errorf("messages %v came back: an unreadable body would be retried for ever", again)
			}
			logged(t, world.Functions[provision], row.says)
		})
	}
	if len(objects(t, i)) == 0 {
		t.Error("the good event of the same batch was not handled")
	}
}

func TestRefusal_IsRecordedAndWritesNothing(t *testing.T) {
	templates := changed(t, "worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"Name\" }}'\nfqdn_suffixes: [corp.example]")
	function := variant(t, provision, map[string]string{"TEMPLATES_DIR": templates})
	for name, row := range map[string]struct{ tag, says string }{
		"a name outside its suffixes": {"db1.evil.example", "none of fqdn_suffixes"},
		"an invalid name":             {"db_1.corp.example", "RFC 1123"},
		"quotes":                      {`x" }`, "only letters, digits"},
		"a newline":                   {"a\nb", "only letters, digits"},
		"braces":                      {"{{ .FQDN }}", "only letters, digits"},
		"a comma":                     {"a.corp.example,b.corp.example", "only letters, digits"},
	} {
		t.Run(name, func(t *testing.T) {
			i := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": row.tag}})
			a := bare(t, function, fleet.Event(i, "running", time.Now()))
			if a.Kind != "refuse" || !strings.Contains(a.Error, row.says) || !strings.Contains(a.Error, i.ID) {
				t.Fatalf("want a refusal that names the instance and contains %q, got %+v", row.says, a)
			}
			if left := objects(t, i); len(left) > 0 {
				t.Errorf("refused, but made: %v", left)
			}
			if r, err := world.Record(t.Context(), i.ID); err != nil || r.State != ledger.Refused || !strings.Contains(r.LastError, row.says) {
				t.Errorf("want the refusal in the ledger, got %+v, %v", r, err)
			}
		})
	}
	t.Run("a valid name is granted", func(t *testing.T) {
		i := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": "db1.corp.example"}})
		if a := bare(t, function, fleet.Event(i, "running", time.Now())); a.Action != "provisioned" || a.FQDN != "db1.corp.example" {
			t.Errorf("got %+v", a)
		}
		second := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": "db1.corp.example"}})
		a := bare(t, function, fleet.Event(second, "running", time.Now()))
		if a.Kind != "refuse" || !strings.Contains(a.Error, i.ID) {
			t.Errorf("want a second live instance with that name refused and the holder named, got %+v", a)
		}
		for _, text := range []string{`"Refused":1`, audit.Refused} {
			logged(t, function, text)
		}
		remove(t, i)
		if a := bare(t, function, fleet.Event(second, "running", time.Now())); a.Action != "provisioned" {
			t.Errorf("want the freed name granted to the second, got %+v", a)
		}
	})
}

func TestAccount_WithoutMemberRoleIsRefused(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker", AccountID: "444455556666"})
	a := bare(t, variant(t, provision, map[string]string{"MEMBER_ROLE_NAME": ""}), fleet.Event(i, "running", time.Now()))
	if a.Kind != "refuse" || !strings.Contains(a.Error, "444455556666") || !strings.Contains(a.Error, "MEMBER_ROLE_NAME") {
		t.Errorf("want a refusal that names the account and the variable, got %+v", a)
	}
}

func TestUnmatchedInstance_CausesNoCalls(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "unmatched-role"})
	resetTaps()
	must(t, provision, i, "running", "unmatched")
	if n := len(world.Taps.Vault.Calls()) + len(world.Taps.Dynamo.Calls()); n != 0 {
		t.Errorf("%d calls were made for an unmatched instance", n)
	}
}

func TestStart_FailsAndNamesTheMisconfiguration(t *testing.T) {
	broken := changed(t, "worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`, `{{ if false }}{{ .Nope }}{{ end }}`)
	for name, row := range map[string]struct {
		change map[string]string
		says   []string
	}{
		"missing variables":          {map[string]string{"TABLE_NAME": "", "VAULT_ADDR": ""}, []string{"TABLE_NAME is required", "VAULT_ADDR is required"}},
		"a template that fails":      {map[string]string{"TEMPLATES_DIR": broken}, []string{"policy.hcl.tmpl", "Nope"}},
		"a folder without a profile": {map[string]string{"TEMPLATES_DIR": t.TempDir()}, []string{"no profile found"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := variant(t, provision, row.change)
			result, err := f.Invoke(t.Context(), []byte("{}"))
			if err != nil || result.ErrorType != "Runtime.ExitError" {
				t.Fatalf("want the function not to start, got %+v, %v", result, err)
			}
			for _, s := range row.says {
				logged(t, f, s)
			}
		})
	}
}

func TestUnreadableCA_IsRetriedAndNamed(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	missing := "arn:aws:secretsmanager:us-east-1:" + world.AccountID + ":secret:gone-AbCdEf"
	for name, row := range map[string]struct{ arn, says string }{
		"a secret that does not exist": {missing, "gone-AbCdEf"},
		"a secret that is not PEM":     {secret(t, "no-pem", "hush"), "no certificate in PEM"},
		"another authority":            {secret(t, "other-ca", world.Fleet.CertificatePEM()), "VAULT_CA_SECRET_ARN"},
	} {
		t.Run(name, func(t *testing.T) {
			a := bare(t, variant(t, provision, map[string]string{"VAULT_CA_SECRET_ARN": row.arn}), fleet.Event(i, "running", time.Now()))
			if !strings.Contains(a.Failure, row.says) || strings.Contains(a.Failure, "hush") {
				t.Errorf("want a failure that contains %q and not the secret's text, got %+v", row.says, a)
			}
		})
	}
	if left := objects(t, i); len(left) > 0 {
		t.Errorf("want nothing made, got %v", left)
	}
}

func TestVaultDown_NextDeliverySucceeds(t *testing.T) {
	for name, fault := range map[string]tap.Fault{
		"too many requests":                             {Status: 429, Body: []byte(`{"errors":["rate limited"]}`)},
		"the connection cut":                            {CutBefore: true},
		"the connection cut after the call took effect": {CutAfter: true},
	} {
		t.Run(name, func(t *testing.T) {
			i := launch(t, fleet.Spec{Role: "alice-worker"})
			event := fleet.Event(i, "running", time.Now())
			faultOn(t, world.Taps.Vault, fault,
				func(c tap.Call) bool { return strings.Contains(c.Path, i.ID) && strings.HasPrefix(c.Action, "PUT ") })
			if again := batch(t, event); !slices.Equal(again, []int{0}) {
				t.Fatalf("want the message back in the queue, got %v", again)
			}
			if r := recordOf(t, i); r.State != ledger.Provisioning || len(r.Objects) != 4 || r.LastError == "" || r.LeaseOwner != "" {
				t.Errorf("want a record that names the objects and the fault, without a lease, got %+v", r)
			}
			if slices.Contains(objects(t, i), "auth/aws/role/"+i.ID) {
				t.Error("an auth role exists without the rest of the grant")
			}
			world.Taps.Vault.SetFault(nil)
			if again := batch(t, event); len(again) != 0 {
				t.Errorf("want the same message to succeed once Vault is back, got %v\n%s", again, world.Functions[provision].Logs())
			}
			if n := len(objects(t, i)); n != 4 {
				t.Errorf("want 4 objects, got %d", n)
			}
		})
	}
}

func TestLedgerWrite_RecognisesItselfOnRetry(t *testing.T) {
	for _, action := range []string{"TransactWriteItems", "PutItem"} {
		t.Run(action, func(t *testing.T) {
			i := launch(t, fleet.Spec{Role: "alice-worker"})
			lost := false
			world.Taps.Dynamo.SetFault(func(c tap.Call) *tap.Fault {
				if c.Action == action && !lost && strings.Contains(string(c.Body), i.ID) {
					lost = true
					return &tap.Fault{Status: 500, Forward: true, Body: []byte(`{"__type":"InternalServerError"}`)}
				}
				return nil
			})
			defer world.Taps.Dynamo.SetFault(nil)
			must(t, provision, i, "running", "provisioned")
			if !lost {
				t.Fatal("no answer was lost")
			}
		})
	}
}

func TestFunctionLogin_WorksByAppRoleAndToken(t *testing.T) {
	vaultWrite(t, "sys/auth/approle", map[string]any{"type": "approle"})
	vaultWrite(t, "auth/approle/role/fn", map[string]any{"token_policies": "ec2-provisioner-provision", "token_ttl": "10m", "token_no_default_policy": true})
	id := vaultRead(t, "auth/approle/role/fn/role-id")
	both, err := json.Marshal(map[string]any{"role_id": id["role_id"], "secret_id": vaultWrite(t, "auth/approle/role/fn/secret-id", nil)["secret_id"]})
	if err != nil {
		t.Fatal(err)
	}
	created, err := world.Vault.Logical().WriteWithContext(t.Context(), "auth/token/create", map[string]any{"policies": []string{"ec2-provisioner-provision"}, "ttl": "1h"})
	if err != nil {
		t.Fatal(err)
	}
	for method, text := range map[string]string{"approle": string(both), "token": fmt.Sprintf(`{"token":%q}`, created.Auth.ClientToken)} {
		t.Run(method, func(t *testing.T) {
			i := launch(t, fleet.Spec{Role: "alice-worker"})
			f := variant(t, provision, map[string]string{
				"VAULT_LOGIN_METHOD": method, "VAULT_LOGIN_MOUNT": "approle", "VAULT_LOGIN_SECRET_ARN": secret(t, "login-"+method, text),
			})
			for _, want := range []string{"provisioned", "unchanged"} {
				if a := bare(t, f, fleet.Event(i, "running", time.Now())); a.Action != want {
					t.Errorf("got %+v, want %s", a, want)
				}
			}
			for _, part := range []string{"secret_id", created.Auth.ClientToken} {
				if strings.Contains(f.Logs(), part) {
					t.Errorf("the logs contain %q", part)
				}
			}
		})
	}
}

func TestRegionFault_RetriesOnlyItsInstances(t *testing.T) {
	here, there := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker", Region: "ap-south-1"})
	faultOn(t, world.Taps.AWS, tap.Fault{Status: 503, Body: []byte(`<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>slow down</Message></Error></Errors><RequestID>x</RequestID></Response>`)},
		func(c tap.Call) bool { return c.Action == "DescribeInstances" && c.Region == "ap-south-1" })
	bodies := [][]byte{fleet.Event(there, "running", time.Now()), fleet.Event(here, "running", time.Now())}
	if again := batch(t, bodies...); !slices.Equal(again, []int{0}) {
		t.Errorf("want only the throttled region's message back, got %v", again)
	}
	logged(t, world.Functions[provision], "region ap-south-1")
	logged(t, world.Functions[provision], "RequestLimitExceeded")
	if n := len(objects(t, here)); n != 4 {
		t.Errorf("the other region's instance has %d objects, want 4", n)
	}
}
