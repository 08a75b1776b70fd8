package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const (
	profilesName  = "name of another profile, by a tag"
	liveName      = "name of a live instance"
	formerName    = "former name of a live instance"
	liveAddress   = "address of a live instance"
	serviceName   = "address that a profile keeps for a service"
	otherStack    = "PKI mount of another deployment"
	otherBasePath = "the same PKI mount by another base path"
)

// edited returns a folder with the lab's profiles after replacements of text: file, old, new.
func edited(t *testing.T, changes ...[3]string) string {
	t.Helper()
	return labtest.Edited(t, world.Profiles, changes...)
}

// byName returns profiles in which a tag names the workers and masters hold names of every kind.
func byName(t *testing.T) string {
	t.Helper()
	return edited(t,
		[3]string{"worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"Name\" }}'\nfqdn_suffixes: [alice.example, ec2.internal, svc.cluster.local]"},
		[3]string{"master/profile.yaml", `dns_names: ["{{ .FQDN }}", localhost]`, `dns_names: ["{{ .FQDN }}", "etcd-{{ .FQDN }}", "{{ .InstanceID }}.alice.example", vault.alice.example, localhost]`},
		[3]string{"master/profile.yaml", "      - kubernetes\n", "      - kubernetes\n      - api.alice.example\n      - \"{{ .Region }}.api.alice.example\"\n"})
}

// contention counts the refused requests of attackers for an identity.
type contention struct {
	t     *testing.T
	count tally
}

// refuses fails unless the function refuses an instance with a reason that contains every text and makes nothing in Vault.
func (c *contention) refuses(class string, f *sandbox.Function, evil fleet.Instance, says ...string) {
	c.t.Helper()
	a := bare(c.t, f, fleet.Event(evil, "running", time.Now()))
	if a.Kind != "refuse" && a.Kind != "conflict" {
		c.t.Errorf("%s: want a refusal, got %+v: two instances would hold one identity", class, a)
	}
	for _, text := range append(says, evil.ID) {
		if !strings.Contains(a.Error, text) {
			c.t.Errorf("%s: want a reason that contains %q, got %q", class, text, a.Error)
		}
	}
	if left := objects(c.t, evil); len(left) > 0 {
		c.t.Errorf("%s: refused, but made: %v", class, left)
	}
	c.count.add(class, refused)
}

// named launches a worker with a name tag.
func (c *contention) named(name string) fleet.Instance {
	return launch(c.t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": name}})
}

func TestContention_OneInstanceHoldsEachIdentity(t *testing.T) {
	c := &contention{t: t}
	f := variant(t, provision, map[string]string{"TEMPLATES_DIR": byName(t)})
	master := launch(t, fleet.Spec{Role: "alice-master"})
	mustBy(t, f, master, "running", "provisioned")

	for _, name := range []string{
		"api.alice.example", "us-east-1.api.alice.example", "eu-west-1.api.alice.example", "vault.alice.example", "API.alice.example",
		"kubernetes.default.svc.cluster.local", master.ID + ".alice.example", "i-0123456789abcdef0.alice.example",
		"ip-10-0-0-1.ec2.internal", "etcd-ip-10-0-0-1.ec2.internal", master.PrivateDNS, "etcd-" + master.PrivateDNS,
	} {
		c.refuses(profilesName, f, c.named(name), "profile alice_cluster-")
	}

	unique := func(what string) string { return fmt.Sprintf("%s-%d.alice.example", what, time.Now().UnixNano()) }
	victim := c.named(unique("victim"))
	name := victim.Tags["Name"]
	if a := bare(t, f, fleet.Event(victim, "running", time.Now())); a.FQDN != name {
		t.Fatalf("got %+v", a)
	}
	for _, spelling := range []string{name, strings.ToUpper(name[:6]) + name[6:]} {
		c.refuses(liveName, f, c.named(spelling), victim.ID)
	}
	setTags(t, victim, map[string]string{"Name": unique("renamed")})
	mustBy(t, f, victim, "running", "provisioned")
	c.refuses(formerName, f, c.named(name), victim.ID, "a certificate with it may still be good")

	c.addresses(f, master)
	c.count.report(t, profilesName, liveName, formerName, liveAddress, serviceName)
}

// addresses checks that a worker cannot get an address that another holds.
func (c *contention) addresses(f *sandbox.Function, master fleet.Instance) {
	c.t.Helper()
	fresh := func() fleet.Instance { return c.named(fmt.Sprintf("w-%d.alice.example", time.Now().UnixNano())) }
	second := fresh() // by a secondary address, which takes the right to assign one
	assign(c.t, second, master.PrivateIP)
	c.refuses(liveAddress, f, second, master.PrivateIP, master.ID)

	elsewhere := c.twin(master.PrivateIP) // by the first address of an instance in a network of the attacker's own
	c.refuses(liveAddress, f, elsewhere, master.PrivateIP, master.ID)

	// An address that another worker had: its certificate is still valid.
	had := fresh()
	for _, change := range []func(*testing.T, fleet.Instance, string){assign, unassign} {
		change(c.t, had, "127.19.0.1")
		mustBy(c.t, f, had, "running", "provisioned")
	}
	moved := fresh()
	assign(c.t, moved, "127.19.0.1")
	c.refuses(liveAddress, f, moved, "127.19.0.1", had.ID)

	service := fresh()
	assign(c.t, service, "10.254.0.1") // the address of the service kubernetes in the masters' profile
	c.refuses(serviceName, f, service, "10.254.0.1", "alice_cluster-master")

	// An attacker that holds the address first: the refusal names it, and the other instance is granted when it is gone.
	squatter := fresh()
	assign(c.t, squatter, "127.19.0.9")
	mustBy(c.t, f, squatter, "running", "provisioned")
	late := fresh()
	assign(c.t, late, "127.19.0.9")
	a := bare(c.t, f, fleet.Event(late, "running", time.Now()))
	if a.Kind != "refuse" || !strings.Contains(a.Error, squatter.ID) {
		c.t.Fatalf("want the reason to name the holder, so that an operator can end it, got %+v", a)
	}
	remove(c.t, squatter)
	if a := bare(c.t, f, fleet.Event(late, "running", time.Now())); a.Action != "provisioned" {
		c.t.Errorf("want the instance granted once the holder is gone, got %+v", a)
	}
}

// twin launches a worker with a given first address, in a network of its own.
func (c *contention) twin(address string) fleet.Instance {
	c.t.Helper()
	client := ec2.NewFromConfig(world.AWS)
	vpc, err := client.CreateVpc(c.t.Context(), &ec2.CreateVpcInput{CidrBlock: aws.String("127.16.0.0/16")})
	if err != nil {
		c.t.Fatal(err)
	}
	subnet, err := client.CreateSubnet(c.t.Context(), &ec2.CreateSubnetInput{VpcId: vpc.Vpc.VpcId, CidrBlock: aws.String("127.16.0.0/16")})
	if err != nil {
		c.t.Fatal(err)
	}
	return launch(c.t, fleet.Spec{
		Role: "alice-worker", SubnetID: aws.ToString(subnet.Subnet.SubnetId), PrivateIP: address,
		Tags: map[string]string{"Name": fmt.Sprintf("twin-%d.alice.example", time.Now().UnixNano())},
	})
}

func unassign(t *testing.T, i fleet.Instance, address string) {
	t.Helper()
	client := ec2.NewFromConfig(world.AWS)
	out, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{i.ID}})
	if err == nil {
		_, err = client.UnassignPrivateIpAddresses(t.Context(), &ec2.UnassignPrivateIpAddressesInput{
			NetworkInterfaceId: out.Reservations[0].Instances[0].NetworkInterfaces[0].NetworkInterfaceId, PrivateIpAddresses: []string{address},
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// unmarked removes the marks of the lab's PKI mounts until the test ends, as in a Vault from before such marks.
func unmarked(t *testing.T) {
	t.Helper()
	for _, mount := range pkiMounts {
		vaultSet(t, "sys/mounts/"+mount+"/tune", map[string]any{"description": ""})
	}
}

// pkiMounts are the PKI mounts of the lab's profiles.
var pkiMounts = []string{k8s, "alice_cluster/pki/etcd_k8s", "alice_cluster/pki/etcd_overlay", "alice_cluster/pki/k8s_api_proxy"}

func TestContention_RefusesForeignMountAndBasePath(t *testing.T) {
	c := &contention{t: t}
	second := deploy(t, "rival", "us-east-1")
	for _, role := range []string{"alice-worker", "alice-etcd", "alice-master"} {
		c.refuses(otherStack, second.granting, launch(t, fleet.Spec{Role: role}), "rival", "lab", "PKI mount")
	}
	nested := edited(t, [3]string{"etcd/profile.yaml", "base_path: alice_cluster", "base_path: alice_cluster/pki"})
	for _, role := range []string{"alice-worker", "alice-etcd", "alice-master"} {
		c.refuses(otherBasePath, variant(t, provision, map[string]string{"TEMPLATES_DIR": nested}), launch(t, fleet.Spec{Role: role}), "base_path", "lies in")
	}
	c.count.report(t, otherStack, otherBasePath)
}

// The run that takes over a name reports the holder that it removed, since the holder's own event finds nothing to report.
func TestTakeOver_ReportsTheFormerHolder(t *testing.T) {
	f := variant(t, provision, map[string]string{"TEMPLATES_DIR": byName(t)})
	comparing := variant(t, reconcile, map[string]string{"TEMPLATES_DIR": byName(t)})
	c := &contention{t: t}
	holder := c.named(fmt.Sprintf("held-%d.alice.example", time.Now().UnixNano()))
	mustBy(t, f, holder, "running", "provisioned")
	terminate(t, holder) // its event is lost
	next := c.named(holder.Tags["Name"])
	a := runReconcile(t, comparing, rec.Input{Mode: rec.Correct, InstanceIDs: []string{next.ID}})
	if a.Summary.Corrected != 1 || len(ofGrant(objects(t, next))) != 4 || len(objects(t, holder)) != 0 {
		t.Fatalf("want the name taken over by one run, got %+v", a)
	}
	for _, text := range []string{`"taken_over_by":"` + next.ID + `"`, `"instance":"` + holder.ID + `"`, "Vault Access Removed"} {
		logged(t, comparing, text)
	}
}
