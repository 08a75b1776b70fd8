package tryout

import (
	"bytes"
	"errors"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"go.yaml.in/yaml/v3"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
)

var updateGolden = flag.Bool("update", false, "write the golden files")

// sample returns a run in the home place, as after its start.
func sample() *tryout {
	t := &tryout{
		o:     Options{Name: "tryout", VaultVersion: VaultVersion, Patience: time.Millisecond},
		began: time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC),
		j:     &journal{out: &bytes.Buffer{}, now: func() time.Time { return time.Date(2026, 11, 27, 3, 1, 0, 0, time.UTC) }},
		facts: vaultFacts{Token: "s.secret", Public: "https://192.0.2.1:8200", Private: "https://10.213.1.10:8200", IPv6: "https://[2001:db8::1]:8200", CA: strings.Repeat("c", 800)},
	}
	t.places = []*place{{kind: home, account: "123456789012", aws: aws.Config{Region: "eu-central-1"}, stack: deployed.Stack{Outputs: map[string]string{
		"InstanceRoleArn": "arn:aws:iam::123456789012:role/tryout-place-InstanceRole-1", "NetworkId": "vpc-1",
		"KeyArn": "arn:aws:kms:eu-central-1:123456789012:key/1", "TopicArn": "arn:aws:sns:eu-central-1:123456789012:topic",
	}}}}
	return t
}

func sampleHost(id, kind string, attacks ...int) *host {
	h := &host{id: id, kind: "IPv4 and IPv6, the first", launched: time.Unix(1000, 0), seen: seen{Tries: 3, Waited: 2.1, Granted: 1013.5, Refusal: "400 entry for role not found"}}
	for _, status := range attacks {
		h.seen.Attacks = append(h.seen.Attacks, struct {
			Name, Kind string
			Status     int
			Errors     string
		}{"a wildcard", kind, status, "denied | <by> policy"})
	}
	return h
}

func TestReport_ShowsEachLineAndTable(t *testing.T) {
	run := sample()
	run.hosts = []*host{sampleHost("i-1", "request", 403), sampleHost("i-2", "request", 200)}
	run.j.begin("Deployment")
	run.j.check("sam deploy makes the stack", run.j.now().Add(-90*time.Second), nil)
	run.j.check("the doctor finds nothing", run.j.now(), errors.New("exit status 1\n1 of 38 checks | not ok"))
	run.j.skip("A member", "no --member-profile")
	run.j.begin("Attacks")
	run.judgeAttacks(t.Context())
	d := run.reportData()
	d.Version, d.Took = "v1.2.3", time.Hour
	got := render(d)
	golden := filepath.Join("testdata", "report.md")
	if *updateGolden {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got != string(want) {
		t.Errorf("the report differs from %s (make golden writes it): %v\n%s", golden, err, got)
	}
}

// Only an answer that refuses counts as a refusal: an instance that cannot reach Vault has attacked nothing.
func TestAttackRows_CountOnlyRefusals(t *testing.T) {
	for kind, answers := range map[string]map[int]bool{
		"request": {403: true, 400: false, 404: false, 500: false, 0: false, 200: false, 204: false, 429: false, 503: false},
		"login":   {403: true, 400: true, 500: true, 0: false, 200: false, 429: false, 502: false, 503: false},
	} {
		for status, isRefused := range answers {
			rows := attackRows([]*host{sampleHost("i-1", kind, status)})
			if len(rows) != 1 || rows[0].Tried != 1 || (rows[0].Refused == 1) != isRefused {
				t.Errorf("%s with status %d: want one attack, refused: %v; got %+v", kind, status, isRefused, rows)
			}
		}
	}
}

func TestUserData_FitsEC2(t *testing.T) {
	run := sample()
	run.peer = &host{id: "i-0123456789abcdef0", seen: seen{Name: "ip-10-213-1-10.eu-central-1.compute.internal", Addresses: []string{"10.213.1.10"}}}
	const most = 16384 // https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html
	for name, text := range map[string]string{"an instance": run.userData(run.home()), "Vault's instance": vaultScript} {
		if len(text) > most-500 {
			t.Errorf("user data of %s: want at most %d bytes with what CloudFormation adds, got %d", name, most-500, len(text))
		}
		if strings.Contains(text, run.facts.Token) {
			t.Errorf("user data of %s has Vault's root token, which every reader of the instance's attributes would get", name)
		}
	}
	for name, template := range map[string]string{"place": inserted(placeTemplate, "VAULT_SCRIPT", vaultScript), "groups": inserted(groupsTemplate, "INSTANCE_USER_DATA", run.userData(run.home()))} {
		if len(template) > 51200 { // https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html
			t.Errorf("template %s: want at most 51,200 bytes, got %d", name, len(template))
		}
		if err := yaml.Unmarshal([]byte(template), new(yaml.Node)); err != nil {
			t.Errorf("template %s with its script: %v", name, err)
		}
	}
}

// Each parameter of the deployment is set from the start, changed there and back, or named with the reason why not.
func TestUpdates_CoverEachParameter(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var template struct {
		Parameters map[string]struct {
			Default yaml.Node `yaml:"Default"`
		} `yaml:"Parameters"`
	}
	if err := yaml.Unmarshal(text, &template); err != nil {
		t.Fatal(err)
	}
	changed := map[string]bool{}
	for _, u := range sample().plannedUpdates() {
		if !slices.Equal(slices.Sorted(maps.Keys(u.set)), slices.Sorted(maps.Keys(u.unset))) {
			t.Errorf("update %s: want the same parameters set and unset, got %v and %v", u.name, u.set, u.unset)
		}
		for name, value := range u.unset {
			p, ok := template.Parameters[name]
			if !ok {
				t.Errorf("update %s changes %s, which the template does not have", u.name, name)
			}
			if want := p.Default.Value; value != want {
				t.Errorf("update %s unsets %s to %q, want its default %q", u.name, name, value, want)
			}
			if u.set[name] == value {
				t.Errorf("update %s: %s is %q set and unset", u.name, name, value)
			}
			changed[name] = true
		}
	}
	for name := range template.Parameters {
		if _, isUntried := untriedParameters[name]; changed[name] == isUntried {
			t.Errorf("parameter %s: want it changed by an update, or in untriedParameters with the reason, and not both", name)
		}
	}
}

// The prompt is the only thing between a typing error and another account's bill.
func TestAsk_NeedsTheAccountsID(t *testing.T) {
	for answer, isConfirmed := range map[string]bool{"123456789012\n": true, "123456789012\r\n": true, "": false, "yes\n": false, "123456789013\n": false} {
		run := sample()
		var out bytes.Buffer
		run.o.In, run.o.Out = strings.NewReader(answer), &out
		if err := run.ask(); (err == nil) != isConfirmed {
			t.Errorf("answer %q: want it confirmed: %v, got %v", answer, isConfirmed, err)
		}
		if !strings.Contains(out.String(), "USD") || !strings.Contains(out.String(), "account 123456789012, eu-central-1") {
			t.Errorf("want the costs and the place before the prompt, got %s", out.String())
		}
	}
}

func TestVaultScript_PassesShellcheck(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("shellcheck is not installed: CI must have it, see .github/actions/prepare")
		}
		t.Skip("shellcheck is not installed")
	}
	if out, err := exec.CommandContext(t.Context(), "shellcheck", "--shell=bash", filepath.Join("host", "vault.sh")).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}
