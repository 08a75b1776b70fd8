package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// checking switches moto's check of signatures and policies on or off.
func checking(t *testing.T, on bool) {
	t.Helper()
	unchecked := "inf" // the number of calls before the check starts
	if on {
		unchecked = "0"
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, world.MotoURL+"/moto-api/reset-auth", strings.NewReader(unchecked))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "text/plain")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("switching moto's checks: %s, %v", answer.Status, err)
	}
}

// With moto checking every call, a provision function with the template's actions works, and one without any of them does
// not. moto evaluates no resources here, and DynamoDB Local no permissions: the ledger's actions are compared with the calls
// by TestTemplate_GrantsExactlyTheActionsUsed, and the keys by
// TestLedgerCalls_StayWithinTheRolesKeys.
func TestTemplate_NeedsEachCheckedAction(t *testing.T) {
	granted := actionsGranted(t, "FunctionsPolicy", "ProvisionFunctionRole")
	role := "checked-provision"
	client := iam.NewFromConfig(world.AWS)
	if _, err := client.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &role, AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[]}`)}); err != nil {
		t.Fatal(err)
	}
	allow := func(without string) {
		t.Helper()
		actions := slices.DeleteFunc(slices.Sorted(maps.Keys(granted)), func(a string) bool { return a == without })
		document, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []map[string]any{{"Effect": "Allow", "Action": actions, "Resource": "*"}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &role, PolicyName: aws.String("p"), PolicyDocument: aws.String(string(document))}); err != nil {
			t.Fatal(err)
		}
	}
	session, err := sts.NewFromConfig(world.AWS).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::" + world.AccountID + ":role/" + role), RoleSessionName: &role})
	if err != nil {
		t.Fatal(err)
	}
	token, err := world.Vault.Logical().WriteWithContext(t.Context(), "auth/token/create", map[string]any{"policies": []string{"ec2-provisioner-provision"}, "ttl": "1h"})
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"AWS_ACCESS_KEY_ID": *session.Credentials.AccessKeyId, "AWS_SECRET_ACCESS_KEY": *session.Credentials.SecretAccessKey,
		"AWS_SESSION_TOKEN": *session.Credentials.SessionToken, "VAULT_LOGIN_METHOD": "token",
		"VAULT_LOGIN_SECRET_ARN": secret(t, "checked-login", fmt.Sprintf(`{"token":%q}`, token.Auth.ClientToken)),
	}
	try := func(without string) answer {
		t.Helper()
		i := launch(t, fleet.Spec{Role: "alice-worker"})
		f := variant(t, provision, env) // a cold one, with nothing cached
		allow(without)
		for _, poller := range world.Pollers { // moto refuses the lab's own keys while it checks
			poller.Pause()
			defer poller.Resume()
		}
		checking(t, true)
		defer checking(t, false)
		return bare(t, f, fleet.Event(i, "running", time.Now()))
	}
	if a := try(""); a.Action != "provisioned" {
		t.Fatalf("with all of the template's actions: got %+v", a)
	}
	for _, action := range []string{"ec2:DescribeInstances", "iam:GetInstanceProfile", "secretsmanager:GetSecretValue"} {
		if !granted[action] {
			t.Errorf("the template does not grant %s", action)
		}
		_, call, _ := strings.Cut(action, ":")
		if a := try(action); !strings.Contains(a.Failure, call) || !strings.Contains(a.Failure, "403") {
			t.Errorf("without %s: want a failure that names the call, got %+v", action, a)
		}
	}
}
