package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

func TestProvision_MakesExactlyTheDesignedCalls(t *testing.T) {
	provisioned(t) // logs in and caches the IAM role
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	writes := writesOfGrant(t)
	resetTaps()
	must(t, provision, i, "running", "provisioned")
	for _, want := range []struct {
		what string
		got  int
		n    int
	}{
		{"DescribeInstances", world.Taps.AWS.Count("ec2", "DescribeInstances"), 1},
		{"audit events' calls", world.Taps.AWS.Count("events", "PutEvents"), 1},
		{"GetInstanceProfile, since a first grant uses no cached role", world.Taps.AWS.Count("iam", "GetInstanceProfile"), 1},
		{"all AWS calls", len(world.Taps.AWS.Calls()), 3},
		{"ledger reads", world.Taps.Dynamo.Count("dynamodb", "GetItem"), 1},
		{"ledger intents with claim", world.Taps.Dynamo.Count("dynamodb", "TransactWriteItems"), 1},
		{"ledger writes to mark it active", world.Taps.Dynamo.Count("dynamodb", "PutItem"), 1},
		{"all ledger calls", len(world.Taps.Dynamo.Calls()), 3},
		{"Vault writes, one for each object", vaultCalls("PUT "), writes},
		{"Vault reads, one before each object is first written and one of the auth role after it", vaultCalls("GET "), 4 + 1},
		{"all Vault calls", len(world.Taps.Vault.Calls()), 4 + writes + 1},
	} {
		if want.got != want.n {
			t.Errorf("%s: %d, want %d", want.what, want.got, want.n)
		}
	}
	last := ""
	for _, c := range world.Taps.Vault.Calls() {
		if strings.HasPrefix(c.Action, "PUT ") {
			last = c.Action
		}
	}
	if last != "PUT auth/aws/role/"+i.ID {
		t.Errorf("the last write is %s, want the auth role: a login could otherwise come before its grant", last)
	}
	resetTaps()
	must(t, provision, i, "running", "unchanged")
	if n := len(world.Taps.Vault.Calls()); n != 0 {
		t.Errorf("a repeated event made %d calls to Vault: %+v", n, world.Taps.Vault.Calls())
	}
	if n := len(world.Taps.Dynamo.Calls()); n != 1 || world.Taps.Dynamo.Count("dynamodb", "GetItem") != 1 {
		t.Errorf("a repeated event made %d calls to the ledger, want one read", n)
	}
}

func TestBatch_DescribesOncePerAccountAndRegion(t *testing.T) {
	var bodies [][]byte
	var instances []fleet.Instance
	for _, s := range []fleet.Spec{
		{Role: "alice-worker", Count: 3},
		{Role: "alice-worker", Region: "eu-central-1"},
		{Role: "alice-worker", AccountID: "111122223333"},
	} {
		launched, err := world.Fleet.Launch(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		instances = append(instances, launched...)
	}
	for _, i := range instances {
		bodies = append(bodies, fleet.Event(i, "running", time.Now()))
	}
	resetTaps()
	if again := batch(t, append(bodies, bodies[0])...); len(again) != 0 {
		t.Fatalf("messages %v came back\nlogs:\n%s", again, world.Functions[provision].Logs())
	}
	if n := world.Taps.AWS.Count("ec2", "DescribeInstances"); n != 3 {
		t.Errorf("5 instances in 3 places and one event twice: want 3 DescribeInstances, got %d", n)
	}
	if n := vaultCalls("PUT "); n != 5*writesOfGrant(t) {
		t.Errorf("want every object of 5 instances written, got %d writes", n)
	}
	for _, i := range instances {
		role := vaultRead(t, pathsOf(i.ID).role)
		bound(t, role, "bound_account_id", i.AccountID)
		bound(t, role, "bound_region", i.Region)
	}
	assumed := 0
	for _, c := range world.Taps.AWS.Calls() {
		if c.Action == "AssumeRole" && strings.Contains(string(c.Body), memberRole) {
			assumed++
		}
	}
	if assumed != 1 {
		t.Errorf("want the member role assumed once, for the other account, got %d times", assumed)
	}
}

func TestInstance_LivesThroughRuleQueueAndFunctions(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	through(t, provision, i, "running")
	session := login(t, i)
	wrapped, err := world.Fleet.Login(t.Context(), "aws", i, session.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	terminate(t, i)
	through(t, deprovision, i, "terminated")
	for _, s := range []*fleet.Session{session, wrapped} {
		if _, err := s.Client.Auth().Token().LookupSelfWithContext(t.Context()); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("a token of the removed instance still works: %v", err)
		}
	}
	wantGone(t, i)
	if r := recordOf(t, i); r.State != ledger.Deleted || time.Until(time.Unix(r.ExpiresAt, 0)) < 29*24*time.Hour || len(r.Objects) != 0 {
		t.Errorf("want a tombstone for 30 days, got %+v", r)
	}
	resetTaps()
	must(t, deprovision, i, "terminated", "unchanged")
	if n := len(world.Taps.Vault.Calls()); n != 0 {
		t.Errorf("a repeated event made %d calls to Vault", n)
	}
}

func TestUnchangedInstance_WritesNothing(t *testing.T) {
	i := provisioned(t)
	before := recordOf(t, i)
	// A PKI role is loosened by hand. The ledger does not record that, so an event for the unchanged instance leaves it; a
	// change of the instance would write the differences.
	path := "alice_cluster/pki/k8s/roles/" + i.ID + "-kubelet"
	vaultWrite(t, path, map[string]any{"allow_any_name": true})
	setTags(t, i, map[string]string{"unused": "x"})
	must(t, provision, i, "running", "unchanged") // no profile uses the tag
	if after := recordOf(t, i); after.Version != before.Version {
		t.Errorf("the unchanged record was written: version %d, then %d", before.Version, after.Version)
	}
}

func TestProfile_IssuesItsCertificates(t *testing.T) {
	for role, outputs := range map[string]map[string]map[string]any{
		"alice-etcd": {
			"pki/etcd_k8s/issue/k8s_server":         {"alt_names": "localhost", "ip_sans": "127.0.0.1"},
			"pki/etcd_k8s/issue/k8s_peer":           {},
			"pki/etcd_overlay/issue/overlay_server": {"alt_names": "localhost"},
			"pki/etcd_overlay/issue/overlay_peer":   {},
		},
		"alice-master": {
			"pki/k8s/issue/kube_apiserver":          {"alt_names": "kubernetes.default.svc.cluster.local", "ip_sans": "10.254.0.1"},
			"pki/k8s/issue/kube_controller_manager": {"common_name": "system:kube-controller-manager"},
			"pki/k8s/issue/kube_scheduler":          {"common_name": "system:kube-scheduler"},
			"pki/k8s_api_proxy/issue/api_proxy":     {"common_name": "kube-apiserver-proxy"},
			"pki/etcd_k8s/issue/etcd_client":        {},
		},
		"alice-worker": {
			"pki/k8s/issue/kubelet":    {"common_name": "system:node:"},
			"pki/k8s/issue/kube_proxy": {"common_name": "system:kube-proxy"},
		},
	} {
		t.Run(role, func(t *testing.T) {
			i := launch(t, fleet.Spec{Role: role})
			must(t, provision, i, "running", "provisioned")
			session := login(t, i)
			for output, fields := range outputs {
				name := output[strings.LastIndexByte(output, '/')+1:]
				path := "alice_cluster/" + strings.TrimSuffix(output, name) + i.ID + "-" + name
				if fields["common_name"] == nil {
					fields["common_name"] = i.PrivateDNS
				}
				if fields["common_name"] == "system:node:" {
					fields["common_name"] = "system:node:" + i.PrivateDNS
				}
				if _, err := session.Logical().WriteWithContext(t.Context(), path, fields); err != nil {
					t.Errorf("%s %v: %v", path, fields, err)
				}
				fields["common_name"] = "other.example.com"
				if _, err := session.Logical().WriteWithContext(t.Context(), path, fields); err == nil {
					t.Errorf("%s issued a certificate for another name", path)
				}
			}
		})
	}
}
