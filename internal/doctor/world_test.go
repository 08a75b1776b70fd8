package doctor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const (
	own     = "123456789012"
	foreign = "111122223333"
	pki     = "alice/pki/k8s"

	instanceID = "i-0123456789abcdef0"
)

// world is everything that the doctor checks, in a healthy state. Each test spoils one thing.
type world struct {
	mu      sync.Mutex
	options doctor.Options

	health       vault.Health
	healthErr    error
	namespaceErr error
	loginErr     error
	objects      map[string]map[string]any
	objectErrs   map[string]error
	lists        map[string][]string
	issuers      []vault.Issuer
	capabilities map[string][]string // in place of those of the rights
	capErr       error
	asked        []string // paths whose capabilities were read

	accountErr    error
	roleErrs      map[string]error
	profileErrs   map[string]error
	instancesErrs map[facts.Place]error

	shape       ledger.Shape
	shapeErr    error
	recovery    bool
	recoveryErr error
	expiry      string
	expiryErr   error
	tablePanics bool
	tableHangs  bool
	tornDown    *time.Time
	tornDownErr error
}

func (w *world) TornDown(context.Context) (*time.Time, error) { return w.tornDown, w.tornDownErr }

// The faults of most tests: what Vault lets reconcile do at a path, and what it answers there.

func can(path string, capabilities ...string) func(*world) {
	return func(w *world) { w.capabilities[path] = capabilities }
}

func openBao(version string) func(*world) {
	return func(w *world) { w.health.Server = vault.Server{Product: vault.OpenBao, Version: version} }
}

func fails(path string, err error) func(*world) { return func(w *world) { w.objectErrs[path] = err } }

func namespaced(err error) func(*world) {
	return func(w *world) { w.options.Namespace, w.namespaceErr = "team", err }
}

func lists(path string, names ...string) func(*world) {
	return func(w *world) { w.lists[path] = names }
}

func holds(path, field string, value any) func(*world) {
	return func(w *world) { w.objects[path][field] = value }
}

var yes, no = true, false

var err403 = errors.New("status 403")

func healthy(t *testing.T) *world {
	t.Helper()
	w := &world{
		health: vault.Health{Server: vault.Server{Product: vault.HashiCorp, Version: "1.21.8"}, Initialized: true},
		objects: map[string]map[string]any{
			mounts + "auth/aws": {"type": "aws", "accessor": "auth_aws_1", "config": map[string]any{"max_lease_ttl": json.Number("2764800")}},
			mounts + pki:        {"type": "pki", "description": "nodes; " + grant.MountMark("alice")},
			identity: {
				"ec2_alias": "instance_id", "iam_alias": "role_id",
				"ec2_metadata": []any{"account_id", "instance_id"}, "iam_metadata": []any{"account_id", "inferred_entity_id"},
			},
			pki + "/config/acme": {"enabled": false, "allowed_roles": []any{"*"}},
		},
		objectErrs: map[string]error{},
		lists: map[string][]string{
			"auth/aws/config/sts": {foreign}, pki + "/roles": {instanceID + "-kubelet"},
			"sys/policies/acl": {"default", "ec2-" + instanceID + "-node", "ec2-provisioner-provision", "root"}, "auth/aws/role": {instanceID, "operator"},
		},
		issuers:      []vault.Issuer{{ID: "id-1", Name: "root-2026", IsDefault: &yes}, {ID: "id-2", IsDefault: &no}},
		capabilities: map[string][]string{},
		roleErrs:     map[string]error{}, profileErrs: map[string]error{}, instancesErrs: map[facts.Place]error{},
		shape: ledger.Shape{Status: "ACTIVE", Keys: "pk (S)"}, recovery: true, expiry: "expires_at",
	}
	profiles := load(t, "ec2", "arn:aws:iam::*:role/alice-worker", "arn:aws:iam::*:role/alice-etcd")
	w.options = doctor.Options{
		Server: w, Objects: w, AWS: w, Table: w, Ledger: w,
		Region:   "us-east-1",
		Places:   []facts.Place{{Region: "us-east-1"}, {Region: "eu-central-1"}, {Account: foreign, Region: "us-east-1"}},
		Profiles: profiles, Deployment: "alice",
		Rights:    rights.ByFunction(rights.Scope{Profiles: profiles, AuthMount: "aws"})[rights.Reconcile],
		AuthMount: "aws", LoginMount: "aws-functions",
		RoleNames: []string{"ec2-provisioner-provision", "ec2-provisioner-deprovision", "ec2-provisioner-reconcile"},
		Timeout:   5 * time.Second,
	}
	return w
}

// load returns a set of profiles, one for each role.
func load(t *testing.T, auth string, roles ...string) *grant.Set {
	t.Helper()
	return loadWith(t, `{"max_ttl": "24h"}`, auth, roles...)
}

// withHosts returns a profile with an output that is no PKI role.
func withHosts(t *testing.T) *grant.Set {
	t.Helper()
	set, err := grant.Load(fstest.MapFS{
		"p/profile.yaml": {Data: []byte(`{name: alice-p0, match: {iam_role_arn: "*", vpc_ids: [vpc-0a1b2c3d]}, base_path: alice, fqdn: "{{ .PrivateDNSName }}",
			auth: {token_ttl: 1h, token_max_ttl: 24h}, outputs: [{name: host, type: generic, path: ssh/hosts, template: host.json.tmpl}, {name: web, type: pki-role, path: pki/k8s/roles, template: web.json.tmpl}]}`)},
		"p/host.json.tmpl": {Data: []byte(`{"key_type": "ca"}`)},
		"p/web.json.tmpl":  {Data: []byte(`{"max_ttl": "24h"}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// loadWith is load with a template of the PKI roles.
func loadWith(t *testing.T, template, auth string, roles ...string) *grant.Set {
	t.Helper()
	files := fstest.MapFS{}
	for i, role := range roles {
		folder := fmt.Sprintf("p%d", i)
		files[folder+"/profile.yaml"] = &fstest.MapFile{Data: []byte(fmt.Sprintf(`name: alice-p%d
match: {iam_role_arn: %q, vpc_ids: [vpc-0a1b2c3d]}
base_path: alice
fqdn: "{{ .PrivateDNSName }}"
auth: {type: %s, token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: node, type: policy, template: policy.hcl.tmpl}
  - {name: kubelet, type: pki-role, path: pki/k8s/roles, template: role.json.tmpl}
`, i, role, auth))}
		files[folder+"/policy.hcl.tmpl"] = &fstest.MapFile{Data: []byte(`{{ pkiAccess "kubelet" }}`)}
		files[folder+"/role.json.tmpl"] = &fstest.MapFile{Data: []byte(template)}
	}
	set, err := grant.Load(files)
	if err != nil {
		t.Fatalf("the profiles must load: %v", err)
	}
	return set
}

func (w *world) examine(t *testing.T) doctor.Report {
	t.Helper()
	return doctor.Doctor{Options: w.options}.Examine(t.Context())
}

func (w *world) Health(context.Context) (vault.Health, error) { return w.health, w.healthErr }
func (w *world) CheckNamespace(context.Context) error         { return w.namespaceErr }
func (w *world) Login(context.Context) error                  { return w.loginErr }

func (w *world) Read(_ context.Context, path string) (map[string]any, error) {
	return w.objects[path], w.objectErrs[path]
}

func (w *world) Issuers(_ context.Context, mount string) ([]vault.Issuer, error) {
	return w.issuers, w.objectErrs[mount+"/issuers"]
}

func (w *world) List(_ context.Context, path string) ([]string, error) {
	return w.lists[path], w.objectErrs[path]
}

func (w *world) Capabilities(_ context.Context, paths []string) (map[string][]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, paths...)
	out := map[string][]string{}
	for _, p := range paths {
		if strings.ContainsAny(p, "*+") {
			return nil, fmt.Errorf("%s: Vault would take the wildcard literally", p)
		}
		out[p] = []string{"deny"}
		for _, r := range w.options.Rights {
			if r.Example() == p {
				out[p] = r.Capabilities
			}
		}
		if c, spoilt := w.capabilities[p]; spoilt {
			out[p] = c
		}
	}
	return out, w.capErr
}

func (w *world) Account(context.Context) (string, error) { return own, w.accountErr }

func (w *world) TryRole(_ context.Context, account string) error { return w.roleErrs[account] }

func (w *world) TryProfiles(_ context.Context, account string) error { return w.profileErrs[account] }

func (w *world) TryInstances(_ context.Context, p facts.Place) error {
	if p.Account == "" {
		return errors.New("the function's own account must be resolved before the call to EC2")
	}
	return w.instancesErrs[p]
}

func (w *world) Shape(ctx context.Context) (ledger.Shape, error) {
	if w.tablePanics {
		var none *ledger.Shape
		return *none, nil //nolint:govet // panics on purpose
	}
	if w.tableHangs {
		<-ctx.Done()
		return ledger.Shape{}, ctx.Err()
	}
	return w.shape, w.shapeErr
}

func (w *world) Recovery(context.Context) (bool, error) { return w.recovery, w.recoveryErr }
func (w *world) Expiry(context.Context) (string, error) { return w.expiry, w.expiryErr }

// noRoute is the error of a call without an answer, as AWS's SDK returns it.
func noRoute(host string) error {
	return fmt.Errorf("calling %s: %w", host, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("i/o timeout")})
}

// refusal is an error as AWS's SDK returns it.
type refusal struct{ code string }

func (r refusal) Error() string     { return r.code + ": you are not authorised" }
func (r refusal) ErrorCode() string { return r.code }
