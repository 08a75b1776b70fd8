package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// oldWorker is an instance granted by the version before claims by PKI mount: see testdata/before/README.md.
type oldWorker struct {
	fleet.Instance
	name string // its FQDN
	kind string // its auth type
	// token and nonce are those of a login under that version.
	token, nonce string
}

// fixture returns a file of testdata/before with its placeholders replaced. values holds pairs of placeholder and value.
func fixture(t *testing.T, file string, i fleet.Instance, values ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "before", file))
	if err != nil {
		t.Fatal(err)
	}
	values = append(values, "{instance}", i.ID, "{dns}", i.PrivateDNS, "{address}", i.PrivateIP, "{vpc}", i.VPCID, "{region}", i.Region)
	return strings.NewReplacer(values...).Replace(string(text))
}

// before restores what the former version made for an instance: objects in Vault, items in the ledger, and a live token if
// it has an auth role.
func before(t *testing.T, file string, i fleet.Instance, values ...string) oldWorker {
	t.Helper()
	unmarked(t)
	aliases(t, map[string]any{"ec2_metadata": "default", "iam_metadata": "default"}) // as that version's setup wrote them
	s := oldWorker{Instance: i, name: i.PrivateDNS}
	if name := i.Tags["Name"]; name != "" {
		s.name = name
	}
	var left struct {
		Objects []struct {
			Kind   grant.Kind
			Path   string
			Fields map[string]any
		}
		Ledger []map[string]any
	}
	values = append(values, "{name}", s.name, "{quiet}", time.Now().Add(-time.Second).UTC().Format(time.RFC3339))
	if err := json.Unmarshal([]byte(fixture(t, file, i, values...)), &left); err != nil {
		t.Fatal(err)
	}
	sums, roleID := map[string]string{}, "0f3c8a52-5d0e-4a55-9a3e-7d2f6f0c1b11" // of a deleted role
	for _, o := range left.Objects {
		vaultWrite(t, o.Path, o.Fields)
		sums[o.Path] = grant.Object{Kind: o.Kind, Path: o.Path, Fields: typed(o.Fields)}.SHA256()
		if o.Kind == grant.KindAuthRole {
			roleID, _ = vaultRead(t, o.Path)["role_id"].(string)
			s.kind, _ = o.Fields["auth_type"].(string)
		}
	}
	for _, item := range left.Ledger {
		putItem(t, item, sums, roleID)
	}
	s.logIn(t)
	return s
}

// typed returns the fields with the types that the functions write. JSON's types would have another digest.
func typed(fields map[string]any) map[string]any {
	out := maps.Clone(fields)
	for name, value := range fields {
		switch value := value.(type) {
		case float64:
			out[name] = int64(value)
		case []any:
			list := make([]string, len(value))
			for i, v := range value {
				list[i], _ = v.(string)
			}
			out[name] = list
		}
	}
	return out
}

// putItem writes an item into the ledger's table, with the digests and the role_id of this Vault's objects.
func putItem(t *testing.T, item map[string]any, sums map[string]string, roleID string) {
	t.Helper()
	list, _ := item["objects"].([]any)
	for _, o := range list {
		fields, _ := o.(map[string]any)
		fields["sha256"] = sums[fmt.Sprint(fields["path"])]
		if fields["role_id"] != nil {
			fields["role_id"] = roleID
		}
	}
	if item["former_role_ids"] != nil {
		item["former_role_ids"] = []any{roleID}
	}
	if item["expires_at"] != nil {
		item["expires_at"] = time.Now().Add(29 * 24 * time.Hour).Unix()
	}
	attributes, err := attributevalue.MarshalMap(item)
	if err == nil {
		_, err = world.Dynamo.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(world.Stack.Tables["Table"]), Item: attributes})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// logIn logs the instance in by its auth role, if it has one.
func (s *oldWorker) logIn(t *testing.T) {
	t.Helper()
	var err error
	switch s.kind {
	case "iam":
		s.token, err = iamLogin(t, s.RoleARN, s.ID, s.Instance)
	case "ec2":
		var session *fleet.Session
		if session, err = world.Fleet.Login(t.Context(), world.AuthMount, s.Instance, s.nonce); err == nil {
			s.token, s.nonce = session.Token(), session.Nonce
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// works fails unless the token gets the instance's certificate.
func (s *oldWorker) works(t *testing.T) {
	t.Helper()
	client := clientOn(t, s.Instance, s.token)
	status, body := send(t, client, request{
		path: k8s + "/issue/" + s.ID + "-kubelet",
		body: fmt.Sprintf(`{"common_name":"system:node:%s","alt_names":%q,"ip_sans":%q}`, s.name, s.name, s.PrivateIP),
	})
	if status != http.StatusOK {
		t.Errorf("want %s to get its certificate with its token, got %d %.200s", s.ID, status, body)
	}
}

// isCut fails if the token works, also with a remade policy of its policy's name.
func (s *oldWorker) isCut(t *testing.T) {
	t.Helper()
	defer remake(t, s.Instance)()
	s.isOut(t)
}

// isOut fails if the token works with the present policies.
func (s *oldWorker) isOut(t *testing.T) {
	t.Helper()
	if does := alive(t, s.Instance, map[string]string{"the token from before": s.token}); len(does) > 0 {
		t.Errorf("want the token of %s cut, but it works: %q", s.ID, does)
	}
}

// ofType returns the environment of a function whose worker profile has an auth type.
func ofType(t *testing.T, kind string) map[string]string {
	t.Helper()
	if kind == "ec2" {
		return map[string]string{}
	}
	return map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "type: ec2", "type: "+kind)}
}

// kinds holds the file of an old worker for each auth type.
var kinds = map[string]string{"ec2": "worker.json", "iam": "worker-iam.json"}

// Between the deployment and the first reconcile an old grant works, holds its name against a second instance, and can be
// removed completely.
func TestUpgrade_KeepsOldGrantsUntilTheyEnd(t *testing.T) {
	for kind, file := range kinds {
		t.Run(kind, func(t *testing.T) {
			granting, comparing := variant(t, provision, ofType(t, kind)), variant(t, reconcile, ofType(t, kind))
			s := before(t, file, launch(t, fleet.Spec{Role: "alice-worker"}))
			s.works(t)
			was := grantFields(t, s.Instance)
			if a := runReconcile(t, comparing, rec.Input{Mode: rec.Detect, InstanceIDs: []string{s.ID}}); a.Blocked || a.Summary.Changed == 0 || a.Summary.Orphaned+a.Summary.Conflicting+a.Summary.Failed > 0 {
				t.Errorf("want only changed rows, got %+v", a)
			}
			must(t, deprovision, s.Instance, "running", "left-alone")

			c := &contention{t: t}
			twin := c.twin(s.PrivateIP)
			c.refuses("name of an old grant", granting, twin, s.ID, "alice_cluster")
			if got := grantFields(t, s.Instance); !maps.EqualFunc(got, was, func(a, b map[string]any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
				t.Errorf("want the old grant unchanged, got %v", got)
			}
			s.works(t)

			remove(t, s.Instance)
			wantGone(t, s.Instance)
			s.isCut(t)
			if a := bare(t, granting, fleet.Event(twin, "running", time.Now())); a.Action != "provisioned" {
				t.Errorf("want the name free once its holder is gone, got %+v", a)
			}
		})
	}
}

// One reconcile writes the claims, the bindings, and the lists of addresses in the policy. It cuts no token if Vault can update the auth role in place. Otherwise it
// cuts the tokens of the replaced auth role.
func TestUpgrade_ReconcileWritesClaimsAndBindings(t *testing.T) {
	for kind, file := range kinds {
		t.Run(kind, func(t *testing.T) {
			env := ofType(t, kind)
			env["CONVERGE_QUEUE_URL"] = queueOf(t, "carry-over-"+kind) // provision must not delete an auth role, so none may go to its queue
			comparing := variant(t, reconcile, env)
			s := before(t, file, launch(t, fleet.Spec{Role: "alice-worker"}))
			p := pathsOf(s.ID)
			in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{s.ID}}
			a := runReconcile(t, comparing, in)
			want := map[string]rec.Summary{"ec2": {Changed: 2, Enqueued: 2}, "iam": {Changed: 2, Corrected: 2}}[kind]
			if a.Blocked || a.Summary != want {
				t.Fatalf("want %+v, got %+v", want, a)
			}
			if kind == "ec2" { // without a queue
				delete(env, "CONVERGE_QUEUE_URL")
				comparing = variant(t, reconcile, env)
				if a := runReconcile(t, comparing, in); a.Blocked || a.Summary != (rec.Summary{Changed: 2, Corrected: 2}) {
					t.Fatalf("got %+v", a)
				}
			}
			old := s
			if kind == "iam" {
				old.isOut(t) // its auth role was replaced: its holder may have logged in without the new binding
			} else {
				s.works(t)
			}
			s.logIn(t)
			s.works(t)
			role := vaultRead(t, p.role)
			if got := fmt.Sprint(role["bound_iam_role_arn"]); got != "["+s.RoleARN+"]" {
				t.Errorf("want the IAM role bound, got %s", got)
			}
			if kind == "iam" && (role["resolve_aws_unique_ids"] != false || fmt.Sprint(role["bound_iam_principal_arn"]) != "["+s.RoleARN+"]") {
				t.Errorf("want the principal bound by its ARN, got %v", role)
			}
			status, body := send(t, clientOn(t, s.Instance, s.token), request{
				path: k8s + "/issue/" + s.ID + "-kubelet", body: text(t, map[string]any{"common_name": "system:node:" + s.name, "ip_sans": []string{s.PrivateIP}}),
			})
			if policy := fmt.Sprint(vaultRead(t, p.policy)["policy"]); status != http.StatusOK || !strings.Contains(policy, fmt.Sprintf(`[%q]]`, s.PrivateIP)) {
				t.Errorf("want a client that sends a list to get its certificate, got %d %.200s by the policy\n%s", status, body, policy)
			}
			r := recordOf(t, s.Instance)
			if r.LoginType != kind || r.TokenMaxTTL != 86400 || r.CertificateTTL != 2592000 || len(r.Former) > 0 {
				t.Errorf("want the login type and the lifetimes in the record, got %+v", r)
			}
			wantItems(t, s)
			if a := runReconcile(t, comparing, in); len(a.Drift) > 0 || a.Blocked {
				t.Errorf("want no drift the second time, got %+v", a)
			}

			remove(t, s.Instance)
			s.isCut(t)
			old.isCut(t)
			wantGone(t, s.Instance)
		})
	}
}

// wantItems fails unless the ledger holds a worker's record and a claim for each of its names and addresses, and nothing
// else.
func wantItems(t *testing.T, s oldWorker) {
	t.Helper()
	want := []string{"claim#alice_cluster#" + s.name, "instance#" + s.ID}
	for _, text := range []string{s.PrivateIP, s.name, "system:node:" + s.name} {
		want = append(want, "claim#"+k8s+"#"+text)
	}
	slices.Sort(want)
	if items, err := world.ItemsOf(t.Context(), s.ID); err != nil || !slices.Equal(items, want) {
		t.Errorf("want the items %q in the ledger, got %q, %v", want, items, err)
	}
}

// queueOf creates a queue and returns its URL.
func queueOf(t *testing.T, name string) string {
	t.Helper()
	out, err := sqs.NewFromConfig(world.AWS).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.QueueUrl)
}

// A start of an instance with auth type ec2 carries it over as well. One with type iam is refused and keeps its grant: its
// auth role must be deleted first, which provision may not do.
func TestUpgrade_StartCarriesOverOnlyTypeEC2(t *testing.T) {
	s := before(t, "worker.json", launch(t, fleet.Spec{Role: "alice-worker"}))
	must(t, provision, s.Instance, "running", "provisioned")
	s.works(t)
	wantGranted(t, s.Instance)

	granting, comparing := variant(t, provision, ofType(t, "iam")), variant(t, reconcile, ofType(t, "iam"))
	s = before(t, "worker-iam.json", launch(t, fleet.Spec{Role: "alice-worker"}))
	was := grantFields(t, s.Instance)
	for range 2 {
		a := bare(t, granting, fleet.Event(s.Instance, "running", time.Now()))
		if a.Kind != "refuse" || !strings.Contains(a.Error, "reconcile in mode correct") {
			t.Errorf("want a refusal that names the remedy, got %+v", a)
		}
		s.works(t)
		if got := grantFields(t, s.Instance); fmt.Sprint(got) != fmt.Sprint(was) {
			t.Errorf("want the grant unchanged, got %v", got)
		}
		if r := recordOf(t, s.Instance); r.State != ledger.Active || len(r.Objects) != 4 || r.LastError != a.Error {
			t.Errorf("want an active record with the reason, got %+v", r)
		}
	}
	if a := runReconcile(t, comparing, rec.Input{Mode: rec.Correct, InstanceIDs: []string{s.ID}}); a.Summary.Corrected == 0 || a.Summary.Failed > 0 {
		t.Errorf("got %+v", a)
	}
	s.isOut(t)
	s.logIn(t)
	s.works(t)
	if a := bare(t, granting, fleet.Event(s.Instance, "running", time.Now())); a.Action != "unchanged" || recordOf(t, s.Instance).LastError != "" {
		t.Errorf("want no change and no error, got %+v, %+v", a, recordOf(t, s.Instance))
	}
}
