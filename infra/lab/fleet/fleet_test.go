package fleet

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
)

func TestFleet_LaunchesLogsInAndAnnounces(t *testing.T) {
	w := partstest.Workspace(t)
	moto := partstest.Moto(t, w)
	vault := partstest.Vault(t, w)

	cfg := awsclient.Config(moto.URL, "us-east-1")
	queue, err := sqs.NewFromConfig(cfg).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("events")})
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Options{
		AWS: cfg, AccountID: parts.AccountID, VaultAddr: vault.Address, VaultCAPEM: vault.CAPEM,
		QueuesFor: func(state string) []string { return []string{aws.ToString(queue.QueueUrl)} },
	})
	if err != nil {
		t.Fatal(err)
	}
	root, err := f.VaultClient(vault.RootToken)
	if err != nil {
		t.Fatal(err)
	}
	prepareMount(t, root, f, moto.URL)

	t.Run("an instance has its role, its tags and its addresses", func(t *testing.T) {
		got, err := f.Launch(t.Context(), Spec{Count: 2, Role: "worker", Tags: map[string]string{"role": "worker"}})
		if err != nil {
			t.Fatal(err)
		}
		i := got[0]
		if len(got) != 2 || i.Role != "worker" || i.RoleARN != "arn:aws:iam::123456789012:role/worker" || i.Tags["role"] != "worker" || i.PrivateIP == "" || i.VPCID == "" || i.LaunchTime.IsZero() {
			t.Errorf("expected two workers with all facts, seen %+v", got)
		}
		if err := f.SetTags(t.Context(), i, map[string]string{"role": "etcd"}); err != nil {
			t.Fatal(err)
		}
		if i, err = f.Refresh(t.Context(), i); err != nil || i.Tags["role"] != "etcd" {
			t.Errorf("expected the changed tag, seen %v (%v)", i.Tags, err)
		}
	})

	t.Run("an instance logs in to its own role only, and not after its end", func(t *testing.T) {
		two, err := f.Launch(t.Context(), Spec{Count: 2, Role: "worker"})
		if err != nil {
			t.Fatal(err)
		}
		mine, other := two[0], two[1]
		bindRole(t, root, mine)
		bindRole(t, root, other)
		session, err := f.Login(t.Context(), "aws", mine, "")
		if err != nil {
			t.Fatal(err)
		}
		if session.Auth.ClientToken == "" || session.Nonce == "" {
			t.Errorf("expected a token and a nonce, seen %+v", session.Auth)
		}
		if _, err := f.Login(t.Context(), "aws", mine, session.Nonce); err != nil {
			t.Errorf("a second login with the nonce should work: %v", err)
		}
		if _, err := f.Login(t.Context(), "aws", mine, ""); err == nil || !strings.Contains(err.Error(), "nonce") {
			t.Errorf("a second login without the nonce should be refused for the nonce, seen %v", err)
		}
		signed, err := f.PKCS7(other)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.LoginWith(t.Context(), "aws", mine, map[string]any{"role": mine.ID, "pkcs7": signed}); err == nil {
			t.Error("another instance's document opened this instance's role")
		}
		if err := f.Stop(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		if err := f.Start(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Refresh(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Login(t.Context(), "aws", mine, session.Nonce); err != nil {
			t.Errorf("a restarted instance should log in with its nonce: %v", err)
		}
		if err := f.Terminate(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Login(t.Context(), "aws", mine, session.Nonce); err == nil {
			t.Error("a terminated instance logged in")
		}
	})

	t.Run("an instance of another account and region is announced with both", func(t *testing.T) {
		got, err := f.Launch(t.Context(), Spec{AccountID: "111122223333", Region: "eu-central-1", Role: "worker"})
		if err != nil {
			t.Fatal(err)
		}
		if i := got[0]; i.RoleARN != "arn:aws:iam::111122223333:role/worker" || !strings.HasSuffix(i.PrivateDNS, ".eu-central-1.compute.internal") {
			t.Errorf("expected the instance in account 111122223333, eu-central-1; seen %+v", i)
		}
		if err := f.Announce(t.Context(), got[0], "running"); err != nil {
			t.Fatal(err)
		}
		out, err := sqs.NewFromConfig(cfg).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: queue.QueueUrl, WaitTimeSeconds: 2})
		if err != nil || len(out.Messages) != 1 {
			t.Fatalf("expected one event, seen %v (%v)", out, err)
		}
		var event struct {
			Account, Region, Source string
			Resources               []string
			Detail                  map[string]string
		}
		if err := json.Unmarshal([]byte(aws.ToString(out.Messages[0].Body)), &event); err != nil {
			t.Fatal(err)
		}
		if event.Account != "111122223333" || event.Region != "eu-central-1" || event.Detail["instance-id"] != got[0].ID || event.Resources[0] != got[0].ARN() {
			t.Errorf("the event does not name the instance's account and region: %+v", event)
		}
	})
}

func prepareMount(t *testing.T, root *vaultapi.Client, f *Fleet, moto string) {
	t.Helper()
	ctx := context.Background()
	if err := root.Sys().EnableAuthWithOptionsWithContext(ctx, "aws", &vaultapi.EnableAuthOptions{Type: "aws"}); err != nil {
		t.Fatal(err)
	}
	_, err := root.Logical().WriteWithContext(ctx, "auth/aws/config/client", map[string]any{
		"endpoint": moto, "iam_endpoint": moto, "sts_endpoint": moto, "sts_region": "us-east-1", "access_key": "AKIALAB", "secret_key": "lab",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.RegisterCertificate(ctx, root, "aws"); err != nil {
		t.Fatal(err)
	}
}

func bindRole(t *testing.T, root *vaultapi.Client, i Instance) {
	t.Helper()
	_, err := root.Logical().WriteWithContext(t.Context(), "auth/aws/role/"+i.ID, map[string]any{
		"auth_type": "ec2", "bound_ec2_instance_id": i.ID, "token_policies": "default",
	})
	if err != nil {
		t.Fatal(err)
	}
}
