package integration

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const (
	otherSession   = "login by another role's session"
	hiddenIdentity = "removal where an alias hides the identity"
	forgedRecord   = "forged record"
)

// iamLogin logs in to an instance's auth role with a session of an IAM role, from the instance's own address, and returns
// the token.
func iamLogin(t *testing.T, roleARN, session string, at fleet.Instance) (string, error) {
	t.Helper()
	out, err := sts.NewFromConfig(world.AWS).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: &roleARN, RoleSessionName: &session})
	if err != nil {
		t.Fatal(err)
	}
	client := clientOn(t, at, "")
	c := out.Credentials
	secret, err := vault.IAM{
		Mount: "aws", Role: at.ID, ServerID: "vault.lab", Region: "us-east-1", Endpoint: "https://sts.us-east-1.amazonaws.com/",
		Credentials: credentials.NewStaticCredentialsProvider(aws.ToString(c.AccessKeyId), aws.ToString(c.SecretAccessKey), aws.ToString(c.SessionToken)),
	}.Login(context.WithoutCancel(t.Context()), vault.NewConn(client, "", ""))
	if err != nil {
		return "", err
	}
	return secret.ClientToken, nil
}

// The caller that assumes a role chooses the name of the session. It needs no permission on the role.
func TestLogin_RefusesSessionOfOtherRole(t *testing.T) {
	function := variant(t, provision, map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "type: ec2", "type: iam")})
	victim, other := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"})
	for _, i := range []fleet.Instance{victim, other} {
		mustBy(t, function, i, "running", "provisioned")
	}
	var count tally
	arn := func(name string) string { return "arn:aws:iam::" + victim.AccountID + ":role/" + name }
	for _, role := range []string{
		"some-ci-runner", "team/some-ci-runner", "alice-master", "alice-workers", "alice-worke", "Alice-Worker", "alice-worker2", "path/alice-master",
	} {
		for _, session := range []string{victim.ID, other.ID} {
			_, err := iamLogin(t, arn(role), session, victim)
			isRefused(t, fmt.Sprintf("%s with session %s", role, session), err)
			count.add(otherSession, refused)
		}
	}
	for _, account := range []string{"111122223333", "999988887777"} {
		_, err := iamLogin(t, "arn:aws:iam::"+account+":role/alice-worker", victim.ID, victim)
		isRefused(t, "the role's namesake in account "+account, err)
		count.add(otherSession, refused)
	}
	_, err := iamLogin(t, victim.RoleARN, other.ID, victim)
	isRefused(t, "another instance of the same role", err)
	count.add(otherSession, refused)
	if _, err := iamLogin(t, victim.RoleARN, victim.ID, victim); err != nil {
		t.Errorf("the instance's own login: %v", err)
	}
	count.report(t, otherSession)
}

// aliases writes the identity settings of the auth mount until the test ends.
func aliases(t *testing.T, fields map[string]any) {
	t.Helper()
	vaultSet(t, "auth/aws/config/identity", fields)
}

// Under every alias setting, a removal that reports success has cut the token, and one that cannot cut it reports a conflict.
func TestRemoval_CutsOrConflictsUnderEveryAlias(t *testing.T) {
	removing := variant(t, deprovision, nil)
	var count tally
	for _, row := range []struct {
		kind, setting, value string
		cuts                 bool
	}{
		{"ec2", "ec2_alias", "instance_id", true}, {"ec2", "ec2_alias", "role_id", true}, {"ec2", "ec2_alias", "image_id", false},
		{"iam", "iam_alias", "role_id", true}, {"iam", "iam_alias", "unique_id", false},
		{"iam", "iam_alias", "canonical_arn", false}, {"iam", "iam_alias", "full_arn", false},
	} {
		t.Run(row.kind+" "+row.value, func(t *testing.T) {
			aliases(t, map[string]any{row.setting: row.value})
			function := variant(t, provision, map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "type: ec2", "type: "+row.kind)})
			i := launch(t, fleet.Spec{Role: "alice-worker"})
			mustBy(t, function, i, "running", "provisioned")
			var token string
			if row.kind == "iam" {
				var err error
				if token, err = iamLogin(t, i.RoleARN, i.ID, i); err != nil {
					t.Fatal(err)
				}
			} else {
				token = login(t, i).Token()
			}
			terminate(t, i)
			a := bare(t, removing, fleet.Event(i, "terminated", time.Now()))
			back := remake(t, i) // a live token needs a policy to show that it works
			works := len(alive(t, i, map[string]string{"token": token})) > 0
			back()
			r := recordOf(t, i)
			if said := a.Action == "deprovisioned" || r.State == ledger.Deleted; said != row.cuts || said && works {
				t.Errorf("%s=%s: the removal returned %+v, the record is %s, the token works: %v", row.setting, row.value, a, r.State, works)
			}
			if !row.cuts && (a.Kind != "conflict" || r.UncutUntil == nil || len(ofGrant(objects(t, i))) > 0) {
				t.Errorf("%s=%s: want a conflict, a date and no object of the grant left, got %+v, %v, %v", row.setting, row.value, a, r.UncutUntil, objects(t, i))
			}
			count.add(hiddenIdentity, refused)
		})
	}
	count.report(t, hiddenIdentity)
}

// A caller that can write the table must not be able to make the deprovision function log out an operator or delete foreign
// objects.
func TestRemoval_OfForgedRecordTouchesNoOther(t *testing.T) {
	vaultSet(t, "auth/aws/role/operator", map[string]any{
		"auth_type": "iam", "bound_iam_principal_arn": []string{"arn:aws:iam::123456789012:role/operator"}, "resolve_aws_unique_ids": false, "token_policies": []string{"default"},
	})
	operatorsRole, _ := vaultRead(t, "auth/aws/role/operator")["role_id"].(string)
	operator := fleet.Instance{ID: "operator", AccountID: "123456789012", PrivateIP: "127.0.0.1"}
	token, err := iamLogin(t, "arn:aws:iam::123456789012:role/operator", "someone", operator)
	if err != nil {
		t.Fatal(err)
	}
	works := func() bool {
		client := clientOn(t, fleet.Instance{}, token)
		status, _ := send(t, client, request{method: http.MethodGet, path: "auth/token/lookup-self"})
		return status == http.StatusOK
	}
	if !works() {
		t.Fatal("the operator's token must work before the removals")
	}
	neighbour := provisioned(t)
	var count tally
	forge := func(what string, objects ...ledger.Object) {
		t.Helper()
		i := launch(t, fleet.Spec{Role: "alice-worker"})
		terminate(t, i)
		l := table(time.Now)
		if _, err := l.Put(t.Context(), ledger.Write{New: ledger.Record{
			InstanceID: i.ID, State: ledger.Active, Account: i.AccountID, Region: i.Region, Profile: worker, Objects: objects, LoginType: "ec2", TokenMaxTTL: 1,
		}}); err != nil {
			t.Fatal(err)
		}
		a := bare(t, world.Functions[deprovision], fleet.Event(i, "terminated", time.Now()))
		if a.Failure != "" {
			t.Errorf("%s: want an answer, not a failure that is redelivered until the dead-letter queue: %s", what, a.Failure)
		}
		if !works() {
			t.Fatalf("%s: the operator was logged out", what)
		}
		wantGranted(t, neighbour)
		count.add(forgedRecord, refused)
	}
	p := pathsOf(neighbour.ID)
	for _, id := range []string{"the operator's role", "none"} {
		forge("the role_id of "+id, ledger.Object{Kind: "auth-role", Path: "auth/aws/role/i-0123456789abcdef0", RoleID: operatorsRole})
	}
	own := launch(t, fleet.Spec{Role: "alice-worker"})
	terminate(t, own)
	if _, err := table(time.Now).Put(t.Context(), ledger.Write{New: ledger.Record{
		InstanceID: own.ID, State: ledger.Active, Account: own.AccountID, Region: own.Region, Profile: worker, LoginType: "iam", TokenMaxTTL: 3600,
		Objects:       []ledger.Object{{Kind: "auth-role", Path: "auth/aws/role/" + own.ID, RoleID: operatorsRole}},
		FormerRoleIDs: []string{operatorsRole},
	}}); err != nil {
		t.Fatal(err)
	}
	if a := bare(t, world.Functions[deprovision], fleet.Event(own, "terminated", time.Now())); a.Kind != "conflict" || !works() {
		t.Errorf("its own auth role with the operator's role_id: want a conflict and the operator logged in, got %+v, works %v", a, works())
	}
	count.add(forgedRecord, refused)
	for _, path := range []string{"auth/aws", "auth/aws/role/operator", p.role, p.policy, p.kubelet, "sys/policies/acl/default", "sys/auth/aws", "sys/mounts/" + k8s, "identity/entity/id/x"} {
		for _, kind := range []string{"auth-role", "policy", "pki-role", "generic"} {
			forge(kind+" at "+path, ledger.Object{Kind: grant.Kind(kind), Path: path})
		}
	}
	count.report(t, forgedRecord)
}

// A caller that may replace the role in an instance profile, and pass only a lesser role, must not get the greater role's
// grant.
func TestFirstGrant_SeesASwappedRole(t *testing.T) {
	client := iam.NewFromConfig(world.AWS)
	const profile = "alice-swapped"
	first := launch(t, fleet.Spec{Role: profile})
	use := func(role string, was string) {
		t.Helper()
		if _, err := client.RemoveRoleFromInstanceProfile(t.Context(), &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: aws.String(profile), RoleName: &was}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.AddRoleToInstanceProfile(t.Context(), &iam.AddRoleToInstanceProfileInput{InstanceProfileName: aws.String(profile), RoleName: &role}); err != nil {
			t.Fatal(err)
		}
	}
	launch(t, fleet.Spec{Role: "alice-master"}) // makes the roles
	launch(t, fleet.Spec{Role: "some-other"})
	function := variant(t, provision, nil)
	use("alice-master", profile)
	if a := bare(t, function, fleet.Event(first, "running", time.Now())); a.Profile != "alice_cluster-master" {
		t.Fatalf("want the function warm with the master's role, got %+v", a)
	}
	use("some-other", "alice-master")
	evil := launch(t, fleet.Spec{Role: profile})
	if a := bare(t, function, fleet.Event(evil, "running", time.Now())); a.Action != "unmatched" || len(objects(t, evil)) > 0 {
		t.Errorf("want the role looked up and no profile to match, got %+v, %v", a, objects(t, evil))
	}
	// Nor does the earlier grant let the instance log in: Vault looks up the role at each login.
	_, err := world.Fleet.Login(t.Context(), "aws", first, "")
	isRefused(t, "an instance whose role was swapped after its grant", err)
	use("alice-master", "some-other")
	if _, err := world.Fleet.Login(t.Context(), "aws", first, ""); err != nil {
		t.Errorf("with the role of its grant: %v", err)
	}
}

// One free claim is not enough: the intent is written with all its claims or not at all.
func TestClaims_AreTakenAllOrNone(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	held := ledger.Name{Under: k8s, Text: "system:node:" + i.PrivateDNS}
	if _, err := table(time.Now).Put(t.Context(), ledger.Write{
		New: record("i-0fedcba9876543210", ""), Claims: []ledger.Name{held},
	}); err != nil {
		t.Fatal(err)
	}
	if a := sendEvent(t, provision, i, "running"); a.Action == "provisioned" {
		t.Errorf("another instance holds the common name: got %+v", a)
	}
	if items, err := world.ItemsOf(t.Context(), i.ID); err != nil || slices.ContainsFunc(items, func(k string) bool { return k != "instance#"+i.ID }) {
		t.Errorf("want no claim of an instance without a grant, got %q, %v", items, err)
	}
	dropItem(t, "claim#"+held.Under+"#"+held.Text)
	must(t, provision, i, "running", "provisioned")
	wantGranted(t, i)
}
