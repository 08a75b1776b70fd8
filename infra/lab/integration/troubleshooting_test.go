package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/lambdaapi"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
)

var update = flag.Bool("update", false, "write the outputs seen into docs/troubleshooting.md instead of comparing")

// shown is a block of docs/troubleshooting.md with an output of the lab, below a mark with the name of its scene.
var shown = regexp.MustCompile("(?s)<!-- seen: ([a-z0-9-]+) -->\n```text\n(.*?)```\n")

// TestTroubleshooting_ShowsRealOutputs produces each symptom of the page and compares what a person sees with the page.
func TestTroubleshooting_ShowsRealOutputs(t *testing.T) {
	page, err := os.ReadFile(docs("troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, b := range shown.FindAllSubmatch(page, -1) {
		blocks[string(b[1])] = string(b[2])
	}
	for name, scene := range scenes {
		t.Run(name, func(t *testing.T) {
			d := &desk{T: t}
			seen := scene(d)
			if d.Failed() || blocks[name] == seen {
				return
			}
			if !*update {
				t.Errorf("the page has\n%s\nand the lab shows\n%s\ngo test -run TestTroubleshooting -update writes it", blocks[name], seen)
				return
			}
			page = shown.ReplaceAllFunc(page, func(b []byte) []byte {
				if string(shown.FindSubmatch(b)[1]) != name {
					return b
				}
				return []byte("<!-- seen: " + name + " -->\n```text\n" + seen + "```\n")
			})
			if err := os.WriteFile(docs("troubleshooting.md"), page, 0o600); err != nil {
				t.Fatal(err)
			}
		})
		delete(blocks, name)
	}
	for name := range blocks {
		t.Errorf("the page shows %s, which no scene produces", name)
	}
}

// desk is where a person looks for a cause: the commands of vault-ec2, and the logs of functions and of an instance.
type desk struct{ *testing.T }

// run returns what a command prints. Its exit status may be 1, which says that something is left to do.
func (d *desk) run(env []string, args ...string) string {
	d.Helper()
	cmd, err := world.Command(d.Context(), args...)
	if err != nil {
		d.Fatal(err)
	}
	cmd.Dir = filepath.Join("..", "..", "..")
	cmd.Env = append(cmd.Env, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 1 {
		d.Fatalf("vault-ec2 %q: %v: %s", args, err, errs.String())
	}
	return out.String()
}

// reconcile runs vault-ec2 reconcile for a function.
func (d *desk) reconcile(f *sandbox.Function, args ...string) string {
	d.Helper()
	return d.run(servedBy(d.T, f), append([]string{"reconcile", "--function", f.Name()}, args...)...)
}

// servedBy serves functions until the test ends, and returns the environment in which a command invokes them.
func servedBy(t *testing.T, functions ...lambdaapi.Invoker) []string {
	t.Helper()
	server, err := lambdaapi.Start(functions...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return []string{"AWS_ENDPOINT_URL_LAMBDA=" + server.URL}
}

// logOf delivers an event to a function in a batch, and returns the last of what it logs about the instance.
func (d *desk) logOf(f *sandbox.Function, i fleet.Instance, event []byte) string {
	d.Helper()
	labtest.Deliver(d.T, f, event)
	logged(d.T, f, i.ID)
	said := d.said(f, i)
	return said[len(said)-1]
}

// said returns the message and the error of each line that a function logged about an instance, below level debug.
func (d *desk) said(f *sandbox.Function, i fleet.Instance) (out []string) {
	d.Helper()
	for line := range strings.Lines(f.Logs()) {
		var said struct{ Instance, Level, Msg, Error, Result string }
		if json.Unmarshal([]byte(line), &said) == nil && said.Instance == i.ID && said.Level != "DEBUG" {
			out = append(out, strings.TrimSpace(strings.TrimSpace(said.Msg+" "+said.Result)+"\n"+said.Error)+"\n")
		}
	}
	if len(out) == 0 {
		d.Fatalf("no line about %s", i.ID)
	}
	return out
}

// agent boots Vault Agent and returns its first error, which holds a text, with the lines below it.
func (d *desk) agent(i fleet.Instance, o lab.AgentOptions, text string) string {
	d.Helper()
	a := boot(d.T, i, o)
	ctx, cancel := context.WithTimeout(d.Context(), 40*time.Second)
	defer cancel()
	if _, err := a.WaitForLog(ctx, text, 1); err != nil {
		d.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // the rest of the error
	var lines []string
	for line := range strings.Lines(a.Log()) {
		begins := agentLine.MatchString(line)
		if begins && len(lines) > 0 && strings.Contains(strings.Join(lines, ""), text) {
			break
		}
		if begins {
			lines = nil
		}
		lines = append(lines, agentLine.ReplaceAllString(line, ""))
	}
	seen := strings.NewReplacer(a.Root, "", a.VaultAddr, "https://vault.example.com:8200").Replace(strings.Join(lines, ""))
	return trailing.ReplaceAllString(backoff.ReplaceAllString(seen, "backoff=1s"), "\n")
}

// agentLine is the time at the beginning of a line of Vault Agent's log.
var agentLine = regexp.MustCompile(`^\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d{4})\s+`)

var (
	backoff  = regexp.MustCompile(`backoff=\S+`) // shortened at random
	trailing = regexp.MustCompile(`[ \t]+\n`)
	clock    = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)`)
	ofFleet  = regexp.MustCompile(`\d+ (instances would be removed of) \d+`)
	recorded = regexp.MustCompile(`with \d+ (recorded instance)s?`)
	clipped  = regexp.MustCompile(`(# identity: .*?"addresses":).*…`) // at a width that depends on the names
	loopback = regexp.MustCompile(`https://127\.0\.0\.1:\d+`)
	took     = regexp.MustCompile(`(?m)^(\w+: compared) .*$`) // the lab has other instances, too
)

// plain replaces what differs from run to run by what the page shows.
func plain(text string, instances ...fleet.Instance) string {
	ids := []string{"i-0123456789abcdef0", "i-0fedcba9876543210"}
	hosts := []string{"10-1-1-4", "10-1-1-5"}
	for n, i := range instances {
		host := strings.ReplaceAll(i.PrivateIP, ".", "-")
		text = strings.NewReplacer(i.ID, ids[n], host, hosts[n], i.PrivateIP, strings.ReplaceAll(hosts[n], "-", ".")).Replace(text)
	}
	text = recorded.ReplaceAllString(ofFleet.ReplaceAllString(text, "7 $1 20"), "with 6 ${1}s")
	text = took.ReplaceAllString(text, "$1 …")
	text = clipped.ReplaceAllString(text, "$1…")
	text = clock.ReplaceAllString(text, "2026-01-02T03:04:05Z")
	return loopback.ReplaceAllString(text, "https://vault.example.com:8200")
}
