package demo

import (
	"context"
	"fmt"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// apiServer is a name that the built-in masters share.
const apiServer = "kubernetes.default.svc.cluster.local"

// tag starts a worker with a tag that asks for the API server's name, and then changes the tag to a free name.
func (d *demo) tag(ctx context.Context) error {
	d.chapter("A worker with a tag that asks for the API server's name")
	label, suffix, _ := strings.Cut(apiServer, ".")
	launched, err := d.world.Fleet.Launch(ctx, fleet.Spec{Role: "alice-tagged-worker", Tags: map[string]string{"Name": label}})
	if err != nil {
		return err
	}
	i := launched[0]
	d.say("In the profile of %s, the tag Name chooses the name below %s. Its value is %q.", i.ID, suffix, label)
	d.say("So the worker asks for %s under the CA that signs the masters' certificates.", apiServer)
	if err := d.started(ctx, i); err != nil {
		return err
	}
	record, err := d.world.Record(ctx, i.ID)
	if err != nil {
		return err
	}
	d.expect(record.State == "refused" && strings.Contains(record.LastError, apiServer) && strings.Contains(record.LastError, "alice_cluster-master"),
		"it is refused, and the reason names the profile with that name", string(record.State))
	d.show(record.LastError)
	made, err := d.world.ObjectsOf(ctx, i.ID)
	if err != nil {
		return err
	}
	d.expect(len(made) == 0, "Vault has no object of it", strings.Join(made, ", "))
	_, err = d.world.Fleet.Login(ctx, d.world.AuthMount, i, "")
	d.refused(err, "it cannot log in", "")

	if err := d.world.Fleet.SetTags(ctx, i, map[string]string{"Name": "worker-7"}); err != nil {
		return err
	}
	d.say("Its tag Name is changed to \"worker-7\", a free name.")
	if err := d.started(ctx, i); err != nil {
		return err
	}
	if d.sessions[i.ID], err = d.world.Fleet.Login(ctx, d.world.AuthMount, i, ""); err != nil {
		d.expect(false, "it is granted that name", lastLine(err))
		return nil
	}
	own := "worker-7." + suffix
	ask := func(name string) map[string]any {
		return map[string]any{"common_name": "system:node:" + own, "alt_names": name, "ip_sans": i.PrivateIP, "ttl": "24h"}
	}
	cert, err := d.issue(ctx, i, i.ID+"-kubelet", ask(own))
	if err != nil {
		d.expect(false, "it is granted that name", lastLine(err))
		return nil
	}
	d.expect(fmt.Sprint(cert.DNSNames) == "["+own+"]", "it is granted that name", cert.Subject.CommonName)
	_, err = d.issue(ctx, i, i.ID+"-kubelet", ask(apiServer))
	d.refused(err, "and the API server's name is still refused", "permission denied")
	return nil
}

// started sends an instance's running event and waits until the provision function has handled it.
func (d *demo) started(ctx context.Context, i fleet.Instance) error {
	poller := d.world.Pollers[provision]
	handled := len(poller.Batches())
	if err := d.world.Fleet.Announce(ctx, i, "running"); err != nil {
		return err
	}
	return d.nextBatch(ctx, handled)
}
