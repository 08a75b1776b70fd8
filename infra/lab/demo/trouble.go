package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

const kubeletFile = "etc/kubernetes/pki/kubelet.pem"

// trouble has a worker's certificate request fail, and follows the page from what the worker's log shows to the cure.
func (d *demo) trouble(ctx context.Context) error {
	d.chapter("A certificate request fails, and a page leads from the log to the cure")
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	launched, err := d.world.Fleet.Launch(ctx, fleet.Spec{Role: "alice-worker"})
	if err != nil {
		return err
	}
	i := launched[0]
	own := lab.OwnTemplate()
	d.say("A VPC has the domain name corp.example in its DHCP options. A worker there has a template of its own for Vault Agent.")
	if err := d.started(ctx, i); err != nil {
		return err
	}
	var log string
	if err := d.onAgent(ctx, i, own, func(a *lab.Agent) error {
		log, err = a.WaitForLog(ctx, "permission denied", 1)
		return err
	}); err != nil {
		return err
	}
	_, seen, _ := strings.Cut(log, "Error making API request.")
	seen, _, _ = strings.Cut(seen, "(retry")
	d.expect(strings.Contains(seen, "/issue/"+i.ID+"-kubelet") && strings.Contains(seen, "Code: 403"), "its log shows that Vault refuses the request, and not why", "")
	d.show(strings.TrimSpace(seen))

	page, err := d.world.Page("troubleshooting.md")
	if err != nil {
		return err
	}
	title, text := entry(page, "/issue/", "Code: 403")
	d.expect(title != "", "docs/troubleshooting.md has an entry with this text", title)
	command, cause := lineWith(text, "vault policy read"), lineWith(text, "another domain")
	d.expect(command != "" && cause != "", "it says what to run, and what the answer means", "")
	d.show(strings.ReplaceAll(command, "i-0123456789abcdef0", i.ID))
	granted, err := d.granted(ctx, i)
	if err != nil {
		return err
	}
	asked := strings.SplitN(i.PrivateDNS, ".", 2)[0] + ".corp.example"
	d.expect(granted == i.PrivateDNS && granted != asked, "the instance was granted "+granted+", and its template asks for "+asked, "")
	d.show(strings.Trim(strings.ReplaceAll(cause, " | ", "\n"), "| "))

	d.say("The cure: the shipped template, which takes the name from the instance's own policy.")
	own.Files = nil
	return d.onAgent(ctx, i, own, func(a *lab.Agent) error {
		_, err := a.WaitFor(ctx, kubeletFile, "BEGIN CERTIFICATE")
		d.expect(err == nil, "/"+kubeletFile+" is there, in the same VPC", "")
		return err
	})
}

// onAgent boots Vault Agent on an instance, calls do and stops it.
func (d *demo) onAgent(ctx context.Context, i fleet.Instance, o lab.AgentOptions, do func(*lab.Agent) error) error {
	a, err := d.world.NewAgent(i, o)
	if err != nil {
		return err
	}
	err = a.Boot(ctx)
	if err == nil {
		err = do(a)
	}
	return errors.Join(err, a.Close())
}

// granted returns the DNS names of a worker's kubelet certificate, as the instance's own policy has them.
func (d *demo) granted(ctx context.Context, i fleet.Instance) (string, error) {
	policy, err := d.world.Vault.Sys().GetPolicyWithContext(ctx, grant.PolicyName(i.ID, "node"))
	if err != nil {
		return "", fmt.Errorf("reading the policy of %s: %w", i.ID, err)
	}
	var own struct {
		Certificates map[string]struct {
			AltNames string `json:"alt_names"`
		}
	}
	_, line, _ := strings.Cut(policy, "\n# identity: ")
	line, _, _ = strings.Cut(line, "\n")
	if err := json.Unmarshal([]byte(line), &own); err != nil {
		return "", fmt.Errorf("reading what %s may know from its policy: %w", i.ID, err)
	}
	return own.Certificates["kubelet"].AltNames, nil
}

// entry returns the title and the text of a page's entry that holds all of the texts.
func entry(page string, texts ...string) (title, text string) {
	for _, section := range strings.Split(page, "\n### ") {
		title, text, _ := strings.Cut(section, "\n")
		holds := true
		for _, t := range texts {
			holds = holds && strings.Contains(text, t)
		}
		if holds {
			return title, text
		}
	}
	return "", ""
}

// lineWith returns the first line of a text that holds a part.
func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
