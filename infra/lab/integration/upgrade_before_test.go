package integration

import (
	"context"
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

// oldWorker is an instance that the version before claims by PKI mount granted: see testdata/before/README.md.
type oldWorker struct {
	fleet.Instance
	name string // its FQDN
	kind string // its auth type
	// token and nonce are of a login under that version.
	token, nonce string
}

// fixture reads a file of testdata/before with its placeholders filled in: pairs of name and value.
func fixture(t *testing.T, file string, i fleet.Instance, values ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "before", file))
	if err != nil {
		t.Fatal(err)
	}
	values = append(values, "{instance}", i.ID, "{dns}", i.PrivateDNS, "{address}", i.PrivateIP, "{vpc}", i.VPCID, "{region}", i.Region)
	return strings.NewReplacer(values...).Replace(string(text))
}

// before puts under an instance what the version before left of one: objects in Vault, items in the ledger, and a live
// token where the instance runs.
func before(t *testing.T, file string, i fleet.Instance, values ...string) oldWorker {
	t.Helper()
	unmarked(t)
	aliases(t, map[string]any{"ec2_metadata": "default", "iam_metadata": "default"}) // as that version's set-up left them
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
	sums, roleID := map[string]string{}, "0f3c8a52-5d0e-4a55-9a3e-7d2f6f0c1b11" // of a role that is gone
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

// typed has the types that the functions write: what JSON made of them would have another digest.
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

// putItem writes an item into the ledger's table, with the digests and the role_id that this Vault asks for.
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

// logIn logs the instance in by its auth role, where it has one.
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

// works fails unless the token is good and gets the instance's certificate.
func (s *oldWorker) works(t *testing.T) {
	t.Helper()
	client, err := world.Fleet.ClientOn(s.Instance, s.token)
	if err != nil {
		t.Fatal(err)
	}
	status, body := send(t, client, request{
		path: k8s + "/issue/" + s.ID + "-kubelet",
		body: fmt.Sprintf(`{"common_name":"system:node:%s","alt_names":%q,"ip_sans":%q}`, s.name, s.name, s.PrivateIP),
	})
	if status != http.StatusOK {
		t.Errorf("want %s to get its certificate with the token that it has, got %d %.200s", s.ID, status, body)
	}
}

// isCut fails while the token does anything, also once a policy of its policy's name is made again.
func (s *oldWorker) isCut(t *testing.T) {
	t.Helper()
	defer remake(t, s.Instance)()
	s.isOut(t)
}

// isOut fails while the token does anything by the policies as they are.
func (s *oldWorker) isOut(t *testing.T) {
	t.Helper()
	if does := alive(t, s.Instance, map[string]string{"the token from before": s.token}); len(does) > 0 {
		t.Errorf("want the token of %s cut, got %q", s.ID, does)
	}
}

// ofType is the lab's worker profile with a way to log in.
func ofType(t *testing.T, kind string) map[string]string {
	t.Helper()
	if kind == "ec2" {
		return map[string]string{}
	}
	return map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "type: ec2", "type: "+kind)}
}

// kinds are the ways to log in, by the file of a worker that does so.
var kinds = map[string]string{"ec2": "worker.json", "iam": "worker-iam.json"}

// Between the deployment and the first reconcile the old grant stands, is held against a second instance, and ends whole.
func TestUpgrade_OldGrantsStandAndEnd(t *testing.T) {
	for kind, file := range kinds {
		t.Run(kind, func(t *testing.T) {
			granting, comparing := variant(t, provision, ofType(t, kind)), variant(t, reconcile, ofType(t, kind))
			s := before(t, file, launch(t, fleet.Spec{Role: "alice-worker"}))
			s.works(t)
			was := standingFor(t, s.Instance)
			if a := runReconcile(t, comparing, rec.Input{Mode: rec.Detect, InstanceIDs: []string{s.ID}}); a.Blocked || a.Summary.Changed == 0 || a.Summary.Orphaned+a.Summary.Conflicting+a.Summary.Failed > 0 {
				t.Errorf("want rows of changes and no others, got %+v", a)
			}
			must(t, deprovision, s.Instance, "running", "left-alone")

			c := &contention{t: t}
			twin := c.twin(s.PrivateIP)
			c.refuses("name of an old grant", granting, twin, s.ID, "alice_cluster")
			if got := standingFor(t, s.Instance); !maps.EqualFunc(got, was, func(a, b map[string]any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
				t.Errorf("want the old grant as it was, got %v", got)
			}
			s.works(t)

			terminate(t, s.Instance)
			must(t, deprovision, s.Instance, "terminated", "deprovisioned")
			wantGone(t, s.Instance)
			s.isCut(t)
			if a := bare(t, granting, fleet.Event(twin, "running", time.Now())); a.Action != "provisioned" {
				t.Errorf("want the name free once its holder is gone, got %+v", a)
			}
		})
	}
}

// One reconcile writes the claims and the bindings. It cuts nobody where Vault lets it write in place, and else who came in
// by the former auth role.
func TestUpgrade_ReconcileCarriesOver(t *testing.T) {
	for kind, file := range kinds {
		t.Run(kind, func(t *testing.T) {
			env := ofType(t, kind)
			env["CONVERGE_QUEUE_URL"] = queueOf(t, "carry-over-"+kind) // provision may delete no auth role: none may be sent there
			comparing := variant(t, reconcile, env)
			s := before(t, file, launch(t, fleet.Spec{Role: "alice-worker"}))
			p := pathsOf(s.ID)
			in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{s.ID}}
			a := runReconcile(t, comparing, in)
			want := map[string]rec.Summary{"ec2": {Changed: 1, Enqueued: 1}, "iam": {Changed: 1, Corrected: 1}}[kind]
			if a.Blocked || a.Summary != want {
				t.Fatalf("want %+v, got %+v", want, a)
			}
			if kind == "ec2" { // without a queue
				delete(env, "CONVERGE_QUEUE_URL")
				comparing = variant(t, reconcile, env)
				if a := runReconcile(t, comparing, in); a.Blocked || a.Summary != (rec.Summary{Changed: 1, Corrected: 1}) {
					t.Fatalf("got %+v", a)
				}
			}
			old := s
			if kind == "iam" {
				old.isOut(t) // its auth role was replaced, and may not have let in who holds it
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
			r := recordOf(t, s.Instance)
			if r.LoginType != kind || r.TokenMaxTTL != 86400 || r.CertificateTTL != 2592000 || len(r.Former) > 0 {
				t.Errorf("want the record to know login and lifetimes, got %+v", r)
			}
			wantItems(t, s)
			if a := runReconcile(t, comparing, in); len(a.Drift) > 0 || a.Blocked {
				t.Errorf("want no drift the second time, got %+v", a)
			}

			terminate(t, s.Instance)
			must(t, deprovision, s.Instance, "terminated", "deprovisioned")
			s.isCut(t)
			old.isCut(t)
			wantGone(t, s.Instance)
		})
	}
}

// wantItems wants a record and a claim for each name and address of a worker.
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

func queueOf(t *testing.T, name string) string {
	t.Helper()
	out, err := sqs.NewFromConfig(world.AWS).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.QueueUrl)
}

// A start of an instance of type ec2 carries it over as well. One of type iam is refused and keeps everything: its auth
// role must be deleted first, which provision may not.
func TestUpgrade_EventOfAnOldInstance(t *testing.T) {
	s := before(t, "worker.json", launch(t, fleet.Spec{Role: "alice-worker"}))
	must(t, provision, s.Instance, "running", "provisioned")
	s.works(t)
	wantGranted(t, s.Instance)

	granting, comparing := variant(t, provision, ofType(t, "iam")), variant(t, reconcile, ofType(t, "iam"))
	s = before(t, "worker-iam.json", launch(t, fleet.Spec{Role: "alice-worker"}))
	was := standingFor(t, s.Instance)
	for range 2 {
		a := bare(t, granting, fleet.Event(s.Instance, "running", time.Now()))
		if a.Kind != "refuse" || !strings.Contains(a.Error, "reconcile in mode correct") {
			t.Errorf("want a refusal that names what helps, got %+v", a)
		}
		s.works(t)
		if got := standingFor(t, s.Instance); fmt.Sprint(got) != fmt.Sprint(was) {
			t.Errorf("want all kept, got %v", got)
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
		t.Errorf("want nothing left to tell, got %+v, %+v", a, recordOf(t, s.Instance))
	}
}

// withoutBounds are the profiles of worker-by-tag.json: the FQDN is a tag, and the kubelet's certificate has no max_ttl.
func withoutBounds(t *testing.T) string {
	t.Helper()
	return edited(t,
		[3]string{"worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, `fqdn: '{{ .Tag "Name" }}'`},
		[3]string{"worker/kubelet.json.tmpl", "  \"max_ttl\": \"720h\",\n", ""})
}

// What a profile granted that breaks a new rule stands; nothing new comes of it until it is mended, and everybody says why.
func TestUpgrade_BarredProfileKeepsItsGrants(t *testing.T) {
	env := map[string]string{"TEMPLATES_DIR": withoutBounds(t)}
	granting, comparing := variant(t, provision, env), variant(t, reconcile, env)
	spec := func(name string) fleet.Spec {
		return fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": fmt.Sprintf("%s-%d.alice.example", name, time.Now().UnixNano())}}
	}
	s := before(t, "worker-by-tag.json", launch(t, spec("old")))
	was := standingFor(t, s.Instance)
	broken := []string{"fqdn_suffixes: is required", "max_ttl is required"}

	c := &contention{t: t}
	late := launch(t, spec("late"))
	c.refuses("grant by a barred profile", granting, late, broken...)
	if a := bare(t, granting, fleet.Event(s.Instance, "running", time.Now())); a.Kind != "refuse" || !strings.Contains(a.Error, broken[0]) {
		t.Errorf("want its own start refused as well, got %+v", a)
	}
	in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{s.ID, late.ID}}
	a := runReconcile(t, comparing, in)
	reasons := map[string]rec.Reason{}
	for _, d := range a.Drift {
		reasons[d.InstanceID] = d.Reason
		for _, rule := range broken {
			if !strings.Contains(d.Error, rule) || d.Action != rec.None || d.Object != rec.KindRecord {
				t.Errorf("want a row that names %q and does nothing, got %+v", rule, d)
			}
		}
	}
	if a.Blocked || len(a.Drift) != 2 || reasons[s.ID] != rec.Changed || reasons[late.ID] != rec.Missing || a.Summary != (rec.Summary{Changed: 1, Missing: 1}) {
		t.Errorf("want one row for the old worker and one for the new, got %+v", a)
	}
	if _, checks := examine(t, comparing); checks["profile rules"].OK || !strings.Contains(checks["profile rules"].Detail, broken[0]) || !strings.Contains(checks["profile rules"].Detail, worker) {
		t.Errorf("want the doctor to name profile and rule, got %+v", checks["profile rules"])
	}
	logged(t, granting, `"Refused":1`)
	logged(t, granting, "a profile breaks a rule")
	logged(t, comparing, `"DriftChanged":1`)
	if got := standingFor(t, s.Instance); fmt.Sprint(got) != fmt.Sprint(was) {
		t.Errorf("want all kept, got %v", got)
	}
	s.works(t)
	s.logIn(t)
	s.works(t)

	env["TEMPLATES_DIR"] = edited(t, [3]string{"worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"Name\" }}'\nfqdn_suffixes: [alice.example]"})
	mended := variant(t, reconcile, env)
	if _, checks := examine(t, mended); !checks["profile rules"].OK {
		t.Errorf("got %+v", checks["profile rules"])
	}
	if a := runReconcile(t, mended, in); a.Summary.Failed > 0 || a.Summary.Corrected == 0 || a.Blocked {
		t.Fatalf("got %+v", a)
	}
	if a := runReconcile(t, mended, in); len(a.Drift) > 0 {
		t.Errorf("want no drift once it is mended, got %+v", a)
	}
	s.works(t)
	wantItems(t, s)
	// Its certificate from before is good for as long as the mount allows, and so long a name that it had is held.
	longest, _ := vaultRead(t, "sys/mounts/"+k8s+"/tune")["max_lease_ttl"].(json.Number)
	if r := recordOf(t, s.Instance); r.LastError != "" || fmt.Sprint(vaultRead(t, pathsOf(s.ID).kubelet)["max_ttl"]) != "2592000" || fmt.Sprint(r.CertificateTTL) != longest.String() {
		t.Errorf("want a bound lifetime, no error left and old certificates of %s s noted, got %+v", longest, r)
	}
	terminate(t, s.Instance)
	must(t, deprovision, s.Instance, "terminated", "deprovisioned")
	s.isCut(t)
}

// Of two live instances that hold one address, one is told and keeps what it has, until the other is gone.
func TestUpgrade_AddressThatTwoHold(t *testing.T) {
	comparing := variant(t, reconcile, nil)
	first, second := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"})
	assign(t, second, first.PrivateIP)
	both := []oldWorker{before(t, "worker.json", first), before(t, "worker-second-address.json", second, "{other}", first.PrivateIP)}
	in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{first.ID, second.ID}}
	if a := runReconcile(t, comparing, in); a.Blocked || a.Summary.Corrected == 0 || a.Summary.Failed == 0 {
		t.Errorf("want one carried over and one refused, got %+v", a)
	}
	told := 0
	for n, s := range both {
		s.works(t)
		s.logIn(t)
		s.works(t)
		r, other := recordOf(t, s.Instance), both[1-n]
		if r.State != ledger.Active || len(r.Objects) != 4 {
			t.Errorf("want both active, got %+v", r)
		}
		if r.LastError == "" {
			continue
		}
		told++
		if !strings.Contains(r.LastError, first.PrivateIP) || !strings.Contains(r.LastError, other.ID) {
			t.Errorf("want the address and its holder named, got %q", r.LastError)
		}
		a := runReconcile(t, comparing, in)
		if a.Summary.Conflicting != 1 || a.Summary.Corrected > 0 || !strings.Contains(a.Drift[0].Error, other.ID) {
			t.Errorf("want a row that names the holder, got %+v", a)
		}
		if a := bare(t, variant(t, provision, nil), fleet.Event(s.Instance, "running", time.Now())); a.Kind != "refuse" || !strings.Contains(a.Error, other.ID) {
			t.Errorf("want its own event refused, got %+v", a)
		}
		s.works(t)
		terminate(t, other.Instance)
		must(t, deprovision, other.Instance, "terminated", "deprovisioned")
		other.isCut(t)
		s.works(t)
		if a := runReconcile(t, comparing, in); a.Summary.Failed > 0 || a.Summary.Corrected == 0 {
			t.Errorf("want it carried over once the other is gone, got %+v", a)
		}
		if a := runReconcile(t, comparing, in); len(a.Drift) > 0 || recordOf(t, s.Instance).LastError != "" {
			t.Errorf("got %+v", a)
		}
		s.works(t)
		break
	}
	if told != 1 {
		t.Errorf("want one of the two told, got %d", told)
	}
}

// Mounts from before bear no mark: grants go on, the doctor says so, and set-up marks them.
func TestUpgrade_UnmarkedMountsGoOn(t *testing.T) {
	unmarked(t)
	granting := variant(t, provision, nil)
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	if a := bare(t, granting, fleet.Event(i, "running", time.Now())); a.Action != "provisioned" {
		t.Errorf("got %+v", a)
	}
	_, checks := examine(t, world.Functions[reconcile])
	if c := checks["pki owner "+k8s]; c.OK || !strings.Contains(c.Detail, "bears no mark") || !strings.Contains(c.Remedy, "-deployment") {
		t.Errorf("want the doctor to say what is missing, got %+v", c)
	}
	out, err := world.VaultSetup(t.Context())
	if err != nil || !strings.Contains(string(out), k8s) {
		t.Fatalf("want the mount marked, got %v\n%s", err, out)
	}
	t.Logf("%s", out)
	if _, checks := examine(t, variant(t, reconcile, nil)); !checks["pki owner "+k8s].OK {
		t.Errorf("got %+v", checks["pki owner "+k8s])
	}
	wantGranted(t, i)
}

// Messages that the functions of before left in the queues are done by the new ones.
func TestUpgrade_OldMessagesAreUnderstood(t *testing.T) {
	const region = "ap-south-2" // of another test: the lab has room for 32 regions
	env := map[string]string{"RECONCILE_REGIONS": region}
	var old struct{ Provision, Reconcile []string }
	i := launch(t, fleet.Spec{Role: "alice-worker", Region: region})
	if err := json.Unmarshal([]byte(fixture(t, "messages.json", i)), &old); err != nil {
		t.Fatal(err)
	}
	for _, body := range old.Provision {
		if again := batch(t, body); len(again) > 0 {
			t.Errorf("want %s done, got it back", body)
		}
	}
	wantGranted(t, i)
	for n, body := range old.Reconcile {
		f := variant(t, reconcile, env)
		payload, err := json.Marshal(map[string]any{"Records": []map[string]any{{"messageId": "1", "body": body, "eventSource": "aws:sqs"}}})
		if err != nil {
			t.Fatal(err)
		}
		if result, err := f.Invoke(t.Context(), payload); err != nil || result.Err() != nil {
			t.Errorf("message %d: %v, %v\n%s", n, err, result.Err(), f.Logs())
		}
		if result, err := f.Invoke(t.Context(), []byte(body)); err != nil || result.Err() != nil {
			t.Errorf("input %d: %v, %v\n%s", n, err, result.Err(), f.Logs())
		}
	}
	wantGranted(t, i)
}

// With the policies of before, a removal does all but is not done: it cannot see whether the tokens are cut. After set-up
// the next delivery ends it.
func TestUpgrade_RemovalUnderOldPolicies(t *testing.T) {
	for kind, file := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := before(t, file, launch(t, fleet.Spec{Role: "alice-worker"}))
			fresh := launch(t, fleet.Spec{Role: "alice-worker"})
			for _, name := range []string{"provision", "deprovision", "reconcile"} {
				policy := "sys/policies/acl/ec2-provisioner-" + name
				was := vaultRead(t, policy)
				vaultWrite(t, policy, map[string]any{"policy": fixture(t, name+".hcl", s.Instance)})
				t.Cleanup(func() {
					if _, err := world.Vault.Logical().WriteWithContext(context.WithoutCancel(t.Context()), policy, was); err != nil {
						t.Error(err)
					}
				})
			}
			must(t, provision, fresh, "running", "provisioned")
			wantGranted(t, fresh) // as reconcile sees it under its own policy of before
			terminate(t, s.Instance)
			for range 2 {
				a := tell(t, deprovision, s.Instance, "terminated")
				if !strings.Contains(a.Failure, "whether the tokens of instance "+s.ID+" are cut cannot be told") || !strings.Contains(a.Failure, "run the Vault setup") {
					t.Errorf("want a failure that comes back and says what helps, got %+v", a)
				}
				if left := objects(t, s.Instance); len(left) > 0 {
					t.Errorf("want all gone from Vault, got %q", left)
				}
				s.isCut(t)
				if r := recordOf(t, s.Instance); r.State != ledger.Deprovisioning || r.UncutUntil != nil {
					t.Errorf("want the record open, got %+v", r)
				}
			}
			if out, err := world.VaultSetup(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			must(t, deprovision, s.Instance, "terminated", "deprovisioned")
			wantGone(t, s.Instance)
		})
	}
}

// A tombstone stays one, and a removal that was to be looked after once more is.
func TestUpgrade_OldRemovalsEnd(t *testing.T) {
	gone := launch(t, fleet.Spec{Role: "alice-worker"})
	settling := launch(t, fleet.Spec{Role: "alice-worker"})
	terminate(t, gone, settling)
	before(t, "tombstone.json", gone)
	before(t, "settling.json", settling)
	in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{gone.ID}}
	if a := runReconcile(t, world.Functions[reconcile], in); len(a.Drift) > 0 || a.Blocked {
		t.Errorf("got %+v", a)
	}
	if a := tell(t, deprovision, gone, "terminated"); a.Action != "unchanged" {
		t.Errorf("got %+v", a)
	}
	must(t, deprovision, settling, "terminated", "deprovisioned")
	wantGone(t, settling)

	// Whoever goes back to the version before, and then on again, finds claims that it knew nothing of.
	next := launch(t, fleet.Spec{Role: "alice-worker"})
	putItem(t, map[string]any{"pk": "claim#" + k8s + "#" + next.PrivateIP, "instance_id": gone.ID, "account": gone.AccountID, "region": gone.Region}, nil, "")
	if a := tell(t, provision, next, "running"); !strings.Contains(a.Failure, "its removal is awaited") {
		t.Errorf("want it to come back until reconcile frees the address, got %+v", a)
	}
	in.InstanceIDs = []string{next.ID}
	if a := runReconcile(t, world.Functions[reconcile], in); a.Summary.Corrected == 0 || a.Summary.Failed > 0 {
		t.Errorf("got %+v", a)
	}
	wantGranted(t, next)
}

// A deployment that takes another's place finds the other's mark: it is refused until the mark is changed by hand, or while it
// adopts, which passes over marks.
func TestUpgrade_MarkIsChangedByHand(t *testing.T) {
	unmarked(t) // puts the marks back at the end
	heir := deploy(t, "heir", "us-east-1")
	mark := func(deployment string) {
		t.Helper()
		for _, mount := range []string{k8s, "alice_cluster/pki/etcd_k8s", "alice_cluster/pki/etcd_overlay", "alice_cluster/pki/k8s_api_proxy"} {
			vaultWrite(t, "sys/mounts/"+mount+"/tune", map[string]any{"description": "managed-by: vault-ec2-provisioner, deployment: " + deployment})
		}
	}
	first, second := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"})
	mark("lab")
	(&contention{t: t}).refuses(otherStack, heir.granting, first, "heir", "lab", k8s)
	adopting := heir.with(t, map[string]string{"CONFLICT_MODE": "adopt"})
	if a := bare(t, adopting.granting, fleet.Event(first, "running", time.Now())); a.Action != "provisioned" {
		t.Errorf("want the mark passed over while it adopts, got %+v", a)
	}
	if _, checks := examine(t, adopting.comparing); checks["pki owner "+k8s].OK {
		t.Error("want the doctor to name the mark all the same")
	}
	mark("heir")
	again := heir.with(t, nil)
	if a := bare(t, again.granting, fleet.Event(second, "running", time.Now())); a.Action != "provisioned" {
		t.Errorf("want it granted once the mark is its own, got %+v", a)
	}
	if _, checks := examine(t, again.comparing); !checks["pki owner "+k8s].OK {
		t.Errorf("got %+v", checks["pki owner "+k8s])
	}
}

// The alias of a way to log in that no worker of the profile uses does not keep an old record from being closed, though it
// does not say how its worker logged in.
func TestUpgrade_RemovalBesideAnotherAlias(t *testing.T) {
	s := before(t, "worker.json", launch(t, fleet.Spec{Role: "alice-worker"}))
	aliases(t, map[string]any{"iam_alias": "unique_id"})
	terminate(t, s.Instance)
	must(t, deprovision, s.Instance, "terminated", "deprovisioned")
	wantGone(t, s.Instance)
	s.isCut(t)
}

// Set-up with -set-alias leaves live tokens under the alias of before. A removal reads the auth role, whose role_id that alias
// is, and cuts them, whether or not reconcile carried the instance over before.
func TestUpgrade_TokensUnderTheFormerAlias(t *testing.T) {
	for _, carried := range []bool{false, true} {
		aliases(t, map[string]any{"ec2_alias": "role_id"})
		s := before(t, "worker.json", launch(t, fleet.Spec{Role: "alice-worker"}))
		aliases(t, map[string]any{"ec2_alias": "instance_id", "ec2_metadata": []string{"account_id", "auth_type", "instance_id"}})
		s.works(t)
		if carried {
			if a := putRight(t, s.Instance); a.Summary.Corrected == 0 || a.Summary.Failed > 0 {
				t.Errorf("got %+v", a)
			}
			s.works(t)
		}
		terminate(t, s.Instance)
		must(t, deprovision, s.Instance, "terminated", "deprovisioned")
		wantGone(t, s.Instance)
		s.isCut(t)
	}
}
