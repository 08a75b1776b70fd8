package demo

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Run runs the demo on a running world. The error names every failed expectation.
func Run(ctx context.Context, w *lab.World, out io.Writer, colour bool) error {
	d := &demo{story: story{out: out, colour: colour}, world: w}
	for _, chapter := range []func(context.Context) error{
		d.start, d.whatWasMade, d.logins, d.certificate, d.refusals, d.tag, d.repeat, d.agent, d.trouble, d.explain, d.quarantine, d.terminate, d.who, d.drift,
	} {
		if err := chapter(ctx); err != nil {
			return errors.Join(err, d.result())
		}
	}
	d.timings()
	if err := d.result(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\n", d.paint(green, fmt.Sprintf("All %d expectations were met.", d.checks)))
	return nil
}

type demo struct {
	story
	world     *lab.World
	instances []fleet.Instance // etcd, master, two workers
	sessions  map[string]*fleet.Session
	ready     []time.Duration
	removed   []time.Duration
}

const (
	provision   = "ProvisionFunction"
	deprovision = "DeprovisionFunction"
	// pkiMount is the PKI mount of the demo's profiles.
	pkiMount = "alice_cluster/pki/k8s"
)

func (d *demo) worker() fleet.Instance { return d.instances[2] }
func (d *demo) other() fleet.Instance  { return d.instances[3] }

func (d *demo) start(ctx context.Context) error {
	d.chapter("Four instances start: an etcd node, a master and two workers")
	d.say("Both workers have the same IAM role: for Vault alone they would be one client.")
	for _, role := range []string{"alice-etcd", "alice-master", "alice-worker", "alice-worker"} {
		launched, err := d.world.Fleet.Launch(ctx, fleet.Spec{Role: role})
		if err != nil {
			return err
		}
		d.instances = append(d.instances, launched...)
	}
	d.world.Taps.AWS.Reset()
	d.world.Taps.Dynamo.Reset()
	announced := time.Now()
	for _, i := range d.instances {
		if err := d.world.Fleet.Announce(ctx, i, "running"); err != nil {
			return err
		}
		d.say("%s  %-13s %-11s %s", i.ID, i.Role, i.PrivateIP, i.PrivateDNS)
	}
	d.say("EventBridge's rule put their state-change events into the queue; the provision function handles them.")
	for _, i := range d.instances {
		begun, err := d.handled(ctx, provision, i, "running")
		if err != nil {
			return err
		}
		if d.ready, err = d.since(d.ready, begun, grant.AuthRolePath(d.world.AuthMount, i.ID)); err != nil {
			return err
		}
	}
	batches := len(d.world.Pollers[provision].Batches())
	describes := d.world.Taps.AWS.Count("ec2", "DescribeInstances")
	d.expect(describes == batches, fmt.Sprintf("one DescribeInstances for each batch of events (%d)", batches), fmt.Sprintf("%d calls", describes))
	return d.calls(ctx, announced)
}

// calls checks the number of calls for the grants: those to the ledger by the lab's tap, those to Vault by its own audit log.
func (d *demo) calls(ctx context.Context, since time.Time) error {
	n, ledger := len(d.instances), d.world.Taps.Dynamo
	teardownReads := 0 // reads of the teardown item: at most one for each batch
	for _, c := range ledger.Calls() {
		if c.Action == "GetItem" && strings.Contains(string(c.Body), `"teardown"`) {
			teardownReads++
		}
	}
	batches := len(d.world.Pollers[provision].Batches())
	reads := ledger.Count("dynamodb", "BatchGetItem") + ledger.Count("dynamodb", "GetItem") - teardownReads // a batch of one reads an item
	intents, puts := ledger.Count("dynamodb", "TransactWriteItems"), ledger.Count("dynamodb", "PutItem")
	d.expect(reads == batches && intents == n && puts == n && len(ledger.Calls()) == reads+2*n+teardownReads && teardownReads <= batches,
		"for each batch one read of the ledger; for each instance one write of the intent with its claim, and one of the active record",
		fmt.Sprintf("%d for %d batches, %d and %d for %d instances", reads, batches, intents, puts, n))
	requests, err := d.world.VaultRequests(since)
	if err != nil {
		return err
	}
	objects, writes, reads := 0, 0, 0
	for _, i := range d.instances {
		made, err := d.world.ObjectsOf(ctx, i.ID)
		if err != nil {
			return err
		}
		objects += len(made)
		for _, r := range requests {
			switch {
			case !strings.Contains(r.Path, i.ID):
			case r.Operation == "read":
				reads++
			default:
				writes++
			}
		}
	}
	d.expect(writes == objects && reads == objects+n, "for each object one read to check its owner and one write, and one read-back of the auth role",
		fmt.Sprintf("%d objects, %d writes, %d reads", objects, writes, reads))
	return nil
}

// handled waits until an instance's event was handled, and returns the time at which the function received its batch.
func (d *demo) handled(ctx context.Context, function string, i fleet.Instance, state string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	poller := d.world.Pollers[function]
	record, batch, err := poller.WaitFor(ctx, func(r queue.Record) bool {
		return strings.Contains(r.Body, i.ID) && strings.Contains(r.Body, `"`+state+`"`)
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("%w\nlogs of the function:\n%s", err, d.world.Functions[function].Logs())
	}
	if !record.Handled {
		return time.Time{}, fmt.Errorf("the event %s of %s was not handled: %s\nlogs of the function:\n%s", state, i.ID, batch.FunctionError, d.world.Functions[function].Logs())
	}
	return batch.Started, nil
}

// since appends the time from begun to the first later write below path in Vault's audit log.
func (d *demo) since(times []time.Duration, begun time.Time, path string) ([]time.Duration, error) {
	requests, err := d.world.VaultRequests(begun)
	if err != nil {
		return nil, err
	}
	for _, r := range requests {
		if strings.HasPrefix(r.Path, path) && r.Operation != "read" {
			return append(times, r.Time.Sub(begun)), nil
		}
	}
	return nil, fmt.Errorf("no request in Vault's audit log for %s", path)
}

func (d *demo) whatWasMade(ctx context.Context) error {
	d.chapter("The objects of each instance")
	for _, i := range d.instances {
		made, err := d.world.ObjectsOf(ctx, i.ID)
		if err != nil {
			return err
		}
		d.say("%s (%s)", i.ID, i.Role)
		d.show(strings.Join(made, "\n"))
		d.expect(slices.Contains(made, grant.AuthRolePath(d.world.AuthMount, i.ID)), "it has its own auth role", "")
	}
	worker := d.worker()
	policy, err := d.world.Vault.Sys().GetPolicyWithContext(ctx, grant.PolicyName(worker.ID, "node"))
	if err != nil {
		return fmt.Errorf("reading the worker's policy: %w", err)
	}
	d.say("The worker's policy allows only its own name and addresses, as literal values:")
	d.show(policy)
	record, err := d.world.Record(ctx, worker.ID)
	if err != nil {
		return err
	}
	d.say("The ledger recorded all objects before they were made:")
	d.show(fmt.Sprintf("pk=%s state=%s profile=%s fqdn=%s version=%d objects=%d", ledger.RecordKey(worker.ID), record.State, record.Profile, record.FQDN, record.Version, len(record.Objects)))
	d.expect(record.State == "active" && len(record.Objects) == 4, "the worker's record is active and names 4 objects", fmt.Sprintf("%s, %d", record.State, len(record.Objects)))
	return nil
}

func (d *demo) logins(ctx context.Context) error {
	d.chapter("Each logs in with its signed identity document, to the role with its own ID")
	d.sessions = map[string]*fleet.Session{}
	for _, i := range d.instances {
		session, err := d.world.Fleet.Login(ctx, d.world.AuthMount, i, "")
		if err != nil {
			d.expect(false, i.ID+" logs in", lastLine(err))
			return fmt.Errorf("the demo needs the login: %w", err)
		}
		d.sessions[i.ID] = session
		d.expect(true, i.ID+" logs in", "policies "+strings.Join(session.Auth.Policies, ", "))
	}
	signed, err := d.world.Fleet.PKCS7(d.other())
	if err != nil {
		return err
	}
	foreign := map[string]any{"role": d.worker().ID, "pkcs7": signed}
	_, err = d.world.Fleet.LoginWith(ctx, d.world.AuthMount, d.other(), foreign)
	d.refused(err, "its neighbour cannot log in to its role from the neighbour's address", "permission denied")
	_, err = d.world.Fleet.LoginWith(ctx, d.world.AuthMount, d.worker(), foreign)
	d.refused(err, "nor with the neighbour's document from the right address", "instance")
	thief, err := d.world.Fleet.ClientOn(d.other(), d.sessions[d.worker().ID].Token())
	if err != nil {
		return err
	}
	_, err = thief.Auth().Token().LookupSelfWithContext(ctx)
	d.refused(err, "the worker's token is refused from another address", "permission denied")
	return nil
}

// issue requests a certificate with an instance's token.
func (d *demo) issue(ctx context.Context, i fleet.Instance, role string, fields map[string]any) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	answer, err := d.sessions[i.ID].Logical().WriteWithContext(ctx, grant.IssuePath(pkiMount, role), fields)
	if err != nil {
		return nil, err
	}
	text, _ := answer.Data["certificate"].(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the answer holds no certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func (d *demo) certificate(ctx context.Context) error {
	d.chapter("The worker gets its kubelet certificate")
	i := d.worker()
	cert, err := d.issue(ctx, i, i.ID+"-kubelet", kubelet(i))
	if err != nil {
		d.expect(false, "the worker gets a certificate for its own name and address", lastLine(err))
		return nil
	}
	d.show(fmt.Sprintf("subject: %s\nDNS:     %v\nIP:      %v\nexpires: %s", cert.Subject, cert.DNSNames, cert.IPAddresses, cert.NotAfter.UTC().Format(time.RFC3339)))
	d.expect(cert.Subject.CommonName == "system:node:"+i.PrivateDNS && slices.Equal(cert.Subject.Organization, []string{"system:nodes"}),
		"its subject is the node's, as Kubernetes requires", "")
	d.expect(slices.Equal(cert.DNSNames, []string{i.PrivateDNS}) && len(cert.IPAddresses) == 1 && cert.IPAddresses[0].Equal(net.ParseIP(i.PrivateIP)),
		"its names and addresses are only the worker's own", "")
	return nil
}

// kubelet returns the fields of a worker's request for its own certificate.
func kubelet(i fleet.Instance) map[string]any {
	return map[string]any{"common_name": "system:node:" + i.PrivateDNS, "alt_names": i.PrivateDNS, "ip_sans": i.PrivateIP, "ttl": "24h"}
}

func (d *demo) refusals(ctx context.Context) error {
	d.chapter("The worker is refused its neighbour's names, addresses and roles")
	i, other := d.worker(), d.other()
	own := i.ID + "-kubelet"
	for _, row := range []struct {
		what   string
		role   string
		change func(map[string]any)
	}{
		{"its neighbour's name as common name", own, func(f map[string]any) { f["common_name"] = "system:node:" + other.PrivateDNS }},
		{"its neighbour's name beside its own", own, func(f map[string]any) { f["alt_names"] = i.PrivateDNS + "," + other.PrivateDNS }},
		{"its neighbour's address", own, func(f map[string]any) { f["ip_sans"] = other.PrivateIP }},
		{"its neighbour's address beside its own", own, func(f map[string]any) { f["ip_sans"] = i.PrivateIP + "," + other.PrivateIP }},
		{"a wildcard", own, func(f map[string]any) { f["alt_names"] = "*." + i.PrivateDNS }},
		{"an expiry of its own choice", own, func(f map[string]any) { f["not_after"] = "2099-01-01T00:00:00Z" }},
		{"its neighbour's PKI role", other.ID + "-kubelet", func(map[string]any) {}},
		{"the same with the neighbour's names", other.ID + "-kubelet", func(f map[string]any) {
			for k, v := range kubelet(other) {
				f[k] = v
			}
		}},
	} {
		fields := kubelet(i)
		row.change(fields)
		_, err := d.issue(ctx, i, row.role, fields)
		d.refused(err, row.what+": refused", "permission denied")
	}
	return nil
}

func (d *demo) repeat(ctx context.Context) error {
	d.chapter("A repeated event changes nothing")
	before := len(d.world.Pollers[provision].Batches())
	since := time.Now()
	if err := d.world.Fleet.Announce(ctx, d.worker(), "running"); err != nil {
		return err
	}
	if err := d.nextBatch(ctx, before); err != nil {
		return err
	}
	requests, err := d.world.VaultRequests(since)
	if err != nil {
		return err
	}
	d.expect(len(requests) == 0, "no request to Vault", fmt.Sprintf("%d requests", len(requests)))
	return nil
}

// nextBatch waits until the provision function has handled more batches than before.
func (d *demo) nextBatch(ctx context.Context, before int) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	for len(d.world.Pollers[provision].Batches()) == before {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for an event to be handled: %w\nlogs of the function:\n%s", ctx.Err(), d.world.Functions[provision].Logs())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (d *demo) terminate(ctx context.Context) error {
	d.chapter("The worker terminates")
	i := d.worker()
	session := d.sessions[i.ID]
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(ctx); err != nil {
		d.expect(false, "its token works until then", lastLine(err))
	}
	if err := d.world.Fleet.Terminate(ctx, i); err != nil {
		return err
	}
	if err := d.world.Fleet.Announce(ctx, i, "terminated"); err != nil {
		return err
	}
	begun, err := d.handled(ctx, deprovision, i, "terminated")
	if err != nil {
		return err
	}
	if d.removed, err = d.since(d.removed, begun, "identity/entity/id/"); err != nil {
		return err
	}
	_, err = session.Client.Auth().Token().LookupSelfWithContext(ctx)
	d.refused(err, "its token, valid for another hour, is refused at once", "permission denied")
	_, err = d.issue(ctx, i, i.ID+"-kubelet", kubelet(i))
	d.refused(err, "it gets no certificate", "permission denied")
	_, err = d.world.Fleet.Login(ctx, d.world.AuthMount, i, session.Nonce)
	d.refused(err, "and it cannot log in again", "")
	left, err := d.world.ObjectsOf(ctx, i.ID)
	if err != nil {
		return err
	}
	d.expect(len(left) == 0, "Vault has no object of it", strings.Join(left, ", "))
	items, err := d.world.ItemsOf(ctx, i.ID)
	if err != nil {
		return err
	}
	d.expect(len(items) == 1 && items[0] == ledger.RecordKey(i.ID), "the ledger has only its tombstone", strings.Join(items, ", "))
	if _, err := d.sessions[d.other().ID].Client.Auth().Token().LookupSelfWithContext(ctx); err != nil {
		d.expect(false, "its neighbour is not affected", lastLine(err))
	} else {
		d.expect(true, "its neighbour is not affected", "")
	}
	return nil
}

func (d *demo) timings() {
	d.chapter("The times, from the function's receipt of the batch to Vault's audit log")
	d.say("%-38s %8s %8s", "", "p50", "max")
	for _, row := range []struct {
		what  string
		times []time.Duration
	}{{"event received → auth role ready", d.ready}, {"event received → live tokens cut off", d.removed}} {
		slices.Sort(row.times)
		d.say("%-38s %8s %8s", row.what, ms(row.times[len(row.times)/2]), ms(row.times[len(row.times)-1]))
	}
	d.say("In both cases the function starts cold: it first reads Vault's CA and logs in to Vault.")
}

func ms(t time.Duration) string { return fmt.Sprintf("%d ms", t.Milliseconds()) }
