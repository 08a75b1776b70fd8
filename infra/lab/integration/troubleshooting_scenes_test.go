package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// scenes produce each symptom of docs/troubleshooting.md and return what a person sees.
var scenes = map[string]func(*desk) string{
	"explain-unmatched": func(d *desk) string {
		i := launch(d.T, fleet.Spec{Role: "alice-workers"})
		seen := plain(d.run(servedBy(d.T, world.Functions[reconcile]), "explain", "--function", world.Functions[reconcile].Name(), i.ID), i)
		return strings.NewReplacer(i.ImageID, "ami-0a1b2c3d", i.VPCID, "vpc-0a1b2c3d").Replace(seen)
	},
	"login-no-role": func(d *desk) string {
		i := launch(d.T, fleet.Spec{Role: "alice-worker"})
		return plain(d.agent(i, lab.AgentOptions{Role: "worker"}, "error authenticating"), i)
	},
	"login-address": func(d *desk) string {
		i := provisioned(d.T)
		return plain(d.agent(i, lab.AgentOptions{Role: "worker", SeenAs: "127.18.0.1"}, "error authenticating"), i)
	},
	"login-nonce": func(d *desk) string {
		i, _ := withToken(d.T)
		return plain(d.agent(i, lab.AgentOptions{Role: "worker"}, "error authenticating"), i)
	},
	"login-certificate": func(d *desk) string {
		const path = "auth/aws/config/certificate/lab-identity"
		known := vaultRead(d.T, path)
		i := provisioned(d.T)
		vaultDelete(d.T, path)
		defer vaultWrite(d.T, path, known)
		return plain(d.agent(i, lab.AgentOptions{Role: "worker"}, "error authenticating"), i)
	},
	"login-account": func(d *desk) string {
		i := launch(d.T, fleet.Spec{Role: "alice-worker", AccountID: "444455556666"})
		must(d.T, provision, i, "running", "provisioned")
		defer remove(d.T, i)
		return plain(d.agent(i, lab.AgentOptions{Role: "worker"}, "error authenticating"), i)
	},
	"login-ca": func(d *desk) string {
		i := provisioned(d.T)
		other := []string{"VAULT_CACERT=", "VAULT_CAPATH=" + d.TempDir()} // a folder without the CA
		return plain(d.agent(i, lab.AgentOptions{Role: "worker", Env: other}, "error authenticating"), i)
	},
	"login-unreachable": func(d *desk) string {
		i := provisioned(d.T)
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			d.Fatal(err)
		}
		address := "https://" + free.Addr().String()
		if err := free.Close(); err != nil {
			d.Fatal(err)
		}
		seen := plain(d.agent(i, lab.AgentOptions{Role: "worker", Env: []string{"VAULT_ADDR=" + address}}, "error authenticating"), i)
		return strings.NewReplacer(address, "https://vault.example.com:8200", strings.TrimPrefix(address, "https://"), "10.1.0.10:8200").Replace(seen)
	},
	"login-type": func(d *desk) string {
		i := provisioned(d.T)
		return plain(d.agent(i, lab.AgentOptions{Role: "worker", IAM: true}, "error authenticating"), i)
	},
	"agent-no-ca": func(d *desk) string {
		i := provisioned(d.T)
		return plain(d.agent(i, lab.AgentOptions{Role: "worker", Files: map[string]string{"etc/vault-agent/vault-ca.pem": "\n"}}, "CA"), i)
	},
	"login-server-id": func(d *desk) string {
		function := variant(d.T, provision, map[string]string{"TEMPLATES_DIR": changed(d.T, "worker/profile.yaml", "type: ec2", "type: iam")})
		i := launch(d.T, fleet.Spec{Role: "alice-worker"})
		mustBy(d.T, function, i, "running", "provisioned")
		return plain(d.agent(i, lab.AgentOptions{Role: "worker", IAM: true, Env: []string{"VAULT_IAM_SERVER_ID="}}, "error authenticating"), i)
	},
	"metadata-off": func(d *desk) string {
		i := provisioned(d.T)
		a, err := world.NewAgent(i, lab.AgentOptions{Role: "worker"})
		if err != nil {
			d.Fatal(err)
		}
		defer func() { _ = a.Close() }()
		service := a.Metadata.URL
		if err := a.Metadata.Close(); err != nil {
			d.Fatal(err)
		}
		err = a.Boot(d.Context())
		if err == nil {
			d.Fatal("want identity to fail without a metadata service")
		}
		lines := strings.Split(strings.TrimSpace(err.Error()), "\n") // the others are curl's
		return strings.ReplaceAll(lines[len(lines)-1], service, "http://169.254.169.254 http://[fd00:ec2::254]") + "\n"
	},
	"request-name": func(d *desk) string {
		i := provisioned(d.T)
		return plain(d.agent(i, lab.OwnTemplate(), "/issue/"), i)
	},
	"request-granted": func(d *desk) string {
		i := provisioned(d.T)
		policy := fmt.Sprint(vaultRead(d.T, "sys/policies/acl/ec2-"+i.ID+"-node")["policy"])
		_, line, _ := strings.Cut(policy, "\n# identity: ")
		line, _, _ = strings.Cut(line, "\n")
		var own struct{ Certificates json.RawMessage }
		var out bytes.Buffer
		if err := errors.Join(json.Unmarshal([]byte(line), &own), json.Indent(&out, own.Certificates, "", "  ")); err != nil {
			d.Fatalf("%v in %s", err, policy)
		}
		return plain(out.String()+"\n", i)
	},
	"request-policy": func(d *desk) string {
		f := variant(d.T, provision, map[string]string{"TEMPLATES_DIR": changed(d.T, "worker/policy.hcl.tmpl", "{{ identityAccess }}", "")})
		i := launch(d.T, fleet.Spec{Role: "alice-worker"})
		mustBy(d.T, f, i, "running", "provisioned")
		return plain(d.agent(i, lab.AgentOptions{Role: "worker"}, "sys/policies/acl"), i)
	},
	"request-no-role": func(d *desk) string {
		i := provisioned(d.T)
		vaultDelete(d.T, k8s+"/roles/"+i.ID+"-kubelet")
		return plain(d.agent(i, lab.AgentOptions{Role: "worker"}, "unknown role"), i)
	},
	"request-not-granted": func(d *desk) string {
		i := launch(d.T, fleet.Spec{Role: "alice-etcd"})
		must(d.T, provision, i, "running", "provisioned")
		return plain(d.agent(i, lab.AgentOptions{Role: "worker"}, "(kubelet-is-not-granted)"), i)
	},
	"no-profile-render": func(d *desk) string {
		i := launch(d.T, fleet.Spec{Role: "web"})
		must(d.T, provision, i, "running", "unmatched")
		seen := plain(d.run(nil, "render", "--instance", i.ID), i)
		return regexp.MustCompile(`"vpc-[0-9a-f]{8,}", wanted`).ReplaceAllString(seen, `"vpc-0f1e2d3c", wanted`)
	},
	"name-refused": func(d *desk) string {
		f := variant(d.T, provision, map[string]string{"TEMPLATES_DIR": byName(d.T), "NAME_WAIT": "0s"})
		name := fmt.Sprintf("t%d.alice.example", time.Now().UnixNano())
		tags := map[string]string{"Name": name}
		holder, i := launch(d.T, fleet.Spec{Role: "alice-worker", Tags: tags}), launch(d.T, fleet.Spec{Role: "alice-worker", Tags: tags})
		mustBy(d.T, f, holder, "running", "provisioned")
		defer remove(d.T, holder)
		seen := d.logOf(f, i, fleet.Event(i, "running", time.Now()))
		return strings.ReplaceAll(plain(seen, i, holder), name, "etcd-1.alice.example")
	},
	"tag-missing": func(d *desk) string {
		f := variant(d.T, provision, map[string]string{"TEMPLATES_DIR": byName(d.T)})
		i := launch(d.T, fleet.Spec{Role: "alice-worker"})
		startedEarlier(d.T, 6*time.Minute)
		return plain(d.logOf(f, i, fleet.Event(i, "running", time.Now().Add(-6*time.Minute))), i)
	},
	"hook-no-profile": func(d *desk) string {
		(&autoScaling{}).install(d.T)
		i := launch(d.T, fleet.Spec{Role: "web"})
		return plain(d.logOf(world.Functions[provision], i, hookEvent(i, "vault-identity-ready", "LAUNCHING")), i)
	},
	"vault-sealed": func(d *desk) string {
		faultOn(d.T, world.Taps.Vault, tap.Fault{Status: 503, Body: []byte(`{"errors":["Vault is sealed"]}`)}, func(c tap.Call) bool { return strings.Contains(c.Path, "auth/aws/role/i-") })
		i := launch(d.T, fleet.Spec{Role: "alice-worker"})
		return plain(d.logOf(world.Functions[provision], i, fleet.Event(i, "running", time.Now())), i)
	},
	"hook-abandoned": func(d *desk) string {
		(&autoScaling{}).install(d.T)
		i := launch(d.T, fleet.Spec{Role: "alice-worker"})
		policy := "sys/policies/acl/ec2-" + i.ID + "-node"
		vaultWrite(d.T, policy, map[string]any{"policy": "# made by hand\n"})
		defer vaultDelete(d.T, policy)
		f := world.Functions[provision]
		d.logOf(f, i, hookEvent(i, "vault-identity-ready", "LAUNCHING"))
		logged(d.T, f, `"result":"ABANDON"`)
		return plain(strings.Join(d.said(f, i), ""), i)
	},
	"doctor-sealed": func(d *desk) string {
		// The answer of a sealed Vault: no other test goes on in a world that is sealed.
		health := []byte(`{"initialized":true,"sealed":true,"standby":true,"version":"1.21.4","enterprise":false}`)
		faultOn(d.T, world.Taps.Vault, tap.Fault{Status: 299, Body: health}, func(c tap.Call) bool { return strings.HasSuffix(c.Path, "/sys/health") })
		lines := strings.SplitAfter(d.reconcile(world.Functions[reconcile], "--mode", "doctor"), "\n")
		at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "NOT OK") })
		return plain(strings.Join(lines[at:at+2], ""))
	},
	"ended": func(d *desk) string {
		i := provisioned(d.T)
		terminate(d.T, i)
		return plain(d.reconcile(world.Functions[reconcile], "--instance", i.ID), i)
	},
	"running-unmatched": func(d *desk) string {
		i := provisioned(d.T)
		f := variant(d.T, reconcile, map[string]string{"TEMPLATES_DIR": changed(d.T, "worker/profile.yaml", "role/alice-worker", "role/alice-wroker")})
		return plain(d.reconcile(f, "--instance", i.ID), i)
	},
	"conflict": func(d *desk) string {
		i := launch(d.T, fleet.Spec{Role: "alice-worker"})
		policy := "sys/policies/acl/ec2-" + i.ID + "-node"
		vaultWrite(d.T, policy, map[string]any{"policy": "# made by hand\n"})
		defer vaultDelete(d.T, policy)
		if a := bare(d.T, world.Functions[provision], fleet.Event(i, "running", time.Now())); a.Kind != "conflict" {
			d.Fatalf("got %+v", a)
		}
		return plain(d.reconcile(world.Functions[reconcile], "--instance", i.ID), i)
	},
	"lost-event": func(d *desk) string {
		i := launch(d.T, fleet.Spec{Role: "alice-worker"})
		defer func() { terminate(d.T, i) }()
		return plain(d.reconcile(world.Functions[reconcile], "--instance", i.ID), i)
	},
	"blocked-region": func(d *desk) string {
		_, f := workers(d.T, "ap-southeast-1", 1, nil)
		ec2Answers(d.T, "ap-southeast-1", xmlError(http.StatusForbidden, "UnauthorizedOperation", "You are not authorized to perform this operation."))
		return plain(notCompared(d.reconcile(f)))
	},
	"blocked-limit": func(d *desk) string {
		fleet, f := workers(d.T, "ap-southeast-1", 7, nil)
		terminate(d.T, fleet...)
		seen := d.reconcile(f, "--mode", "correct", "--profile", "alice_cluster-worker")
		d.reconcile(f, "--mode", "correct", "--profile", "alice_cluster-worker", "--force")
		_, seen, _ = strings.Cut(seen, "BLOCKED")
		return plain("BLOCKED" + seen)
	},
	"file-owner": func(d *desk) string {
		i := provisioned(d.T)
		return plain(d.agent(i, withRole("worker", `perms       = "0600"`, `perms       = "0600"`+"\n  user        = \"kube\""), "unknown user"), i)
	},
	"file-readonly": func(d *desk) string {
		i := provisioned(d.T)
		return plain(d.agent(i, withRole("worker", `"/etc/kubernetes/pki/kubelet.pem"`, `"/etc/kubelet/kubelet.pem"`), "read-only"), i)
	},
}

// notCompared returns the lines of an answer from the places that were not compared on: the shared world has rows of other tests.
func notCompared(text string) string {
	return text[max(strings.Index(text, "not compared"), 0):]
}

func xmlError(status int, code, message string) tap.Fault {
	return tap.Fault{Status: status, Header: http.Header{"Content-Type": {"text/xml"}}, Body: []byte(
		"<Response><Errors><Error><Code>" + code + "</Code><Message>" + message + "</Message></Error></Errors><RequestID>5ea9d7b0</RequestID></Response>")}
}

// withRole returns options with a text of a shipped role file replaced once.
func withRole(role, old, with string) lab.AgentOptions {
	path := "etc/vault-agent/" + role + ".hcl"
	text, err := os.ReadFile(filepath.Join("..", "..", "instance", path))
	if err != nil || !strings.Contains(string(text), old) {
		panic(fmt.Sprintf("%s without %s: %v", path, old, err))
	}
	return lab.AgentOptions{Role: role, Files: map[string]string{path: strings.Replace(string(text), old, with, 1)}}
}

// startedEarlier has EC2 answer with an earlier time of start, until the test ends.
func startedEarlier(t *testing.T, by time.Duration) {
	t.Helper()
	world.Taps.AWS.SetFault(func(c tap.Call) *tap.Fault {
		if c.Action != "DescribeInstances" {
			return nil
		}
		answer := askMoto(t, c, func(url.Values) {})
		answer.Body = launchTime.ReplaceAllFunc(answer.Body, func([]byte) []byte {
			return []byte("<launchTime>" + time.Now().Add(-by).UTC().Format(time.RFC3339) + "</launchTime>")
		})
		return answer
	})
	t.Cleanup(func() { world.Taps.AWS.SetFault(nil) })
}

var launchTime = regexp.MustCompile(`<launchTime>[^<]*</launchTime>`)
