package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// built returns a folder with the test's function as provision/bootstrap.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", filepath.Join(dir, "provision", "bootstrap"), "./internal/testfunctions/recording")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the test's function: %v\n%s", err, out)
	}
	return dir
}

func TestWorld_CarriesAnEventToTheTable(t *testing.T) {
	dir := built(t)
	begun := time.Now()
	w, err := Start(t.Context(), Options{
		RepoRoot: filepath.Join("..", ".."), Template: filepath.Join("stack", "testdata", "template.yaml"), BuildDir: dir,
		Progress: t.Logf, VaultFaultTap: true,
		SetupVault: func(ctx context.Context, w *World) error {
			return w.Vault.Sys().EnableAuthWithOptionsWithContext(ctx, "aws", &vaultapi.EnableAuthOptions{Type: "aws"})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %s", time.Since(begun))
	t.Cleanup(func() {
		begun := time.Now()
		if err := w.Close(); err != nil {
			t.Errorf("closing the world: %v", err)
		}
		t.Logf("down after %s", time.Since(begun))
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()

	got, err := w.Fleet.Launch(ctx, fleet.Spec{Role: "worker"})
	if err != nil {
		t.Fatal(err)
	}
	i := got[0]
	if err := w.Fleet.Announce(ctx, i, "running"); err != nil {
		t.Fatal(err)
	}
	record, batch, err := w.Pollers["ProvisionFunction"].WaitFor(ctx, func(r queue.Record) bool { return strings.Contains(r.Body, i.ID) })
	if err != nil || !record.Handled {
		t.Fatalf("the event was not handled: %+v (%v)\nlogs:\n%s", batch, err, w.Functions["ProvisionFunction"].Logs())
	}
	item, err := w.Dynamo.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: aws.String(w.Stack.Tables["Table"]), ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "instance#" + i.ID}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"account": w.AccountID, "address": i.PrivateIP, "vault": "200 OK"} {
		if value, ok := item.Item[name].(*types.AttributeValueMemberS); !ok || value.Value != want {
			t.Errorf("the row's %s should be %q, seen %v", name, want, item.Item)
		}
	}
	for _, c := range []struct {
		tap             *tap.Tap
		service, action string
	}{
		{w.Taps.AWS, "ec2", "DescribeInstances"}, {w.Taps.AWS, "secretsmanager", "GetSecretValue"},
		{w.Taps.Dynamo, "dynamodb", "PutItem"}, {w.Taps.Vault, "vault", "GET sys/health"},
	} {
		if n := c.tap.Count(c.service, c.action); n != 1 {
			t.Errorf("expected one %s %s by the function and none by the lab, recorded %+v", c.service, c.action, c.tap.Calls())
		}
	}
	requests, err := w.VaultRequests(begun)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, r := range requests {
		found = found || (r.Path == "auth/aws/config/certificate/lab" && r.DisplayName == "root")
	}
	if !found {
		t.Errorf("the audit log should show the certificate's registration by root, seen %+v", requests)
	}
	if err := w.Pollers["ProvisionFunction"].Drained(ctx); err != nil {
		t.Error(err)
	}
}

func TestWorld_NamesAMissingBinaryAndCleansUp(t *testing.T) {
	_, err := Start(t.Context(), Options{
		RepoRoot: filepath.Join("..", ".."), Template: filepath.Join("stack", "testdata", "template.yaml"), BuildDir: t.TempDir(), Progress: t.Logf,
	})
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("expected the hint to run make build, seen %v", err)
	}
}
