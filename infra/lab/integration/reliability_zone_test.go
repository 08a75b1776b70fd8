package integration

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// zoneOutage fails the calls of EC2 that name no instance, and those that name one of the given instances, as EC2 does while an
// Availability Zone is out of service.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
func zoneOutage(down ...fleet.Instance) func(tap.Call) *tap.Fault {
	return func(c tap.Call) *tap.Fault {
		form, err := url.ParseQuery(string(c.Body))
		if c.Action != "DescribeInstances" || err != nil {
			return nil
		}
		var named []string
		for key, values := range form {
			if strings.HasPrefix(key, "InstanceId.") {
				named = append(named, values...)
			}
		}
		isDown := slices.ContainsFunc(down, func(i fleet.Instance) bool { return slices.Contains(named, i.ID) })
		if len(named) > 0 && !isDown {
			return nil
		}
		return ec2Error(http.StatusServiceUnavailable, "Unavailable")(nil, c)
	}
}

// TestZoneOutage_HealthyZonesAreServed has an instance of a zone that is out of service, two of a healthy zone, and one that
// does not exist any more, in one batch.
func TestZoneOutage_HealthyZonesAreServed(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision, deprovision}})
	held := provisioned(t)
	first, unreachable, second := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"})
	forgotten := fleet.Instance{ID: "i-0f0f0f0f0f0f0f0f0", AccountID: first.AccountID, Region: first.Region}
	bodies := [][]byte{
		fleet.Event(first, "running", time.Now()), fleet.Event(unreachable, "running", time.Now()), fleet.Event(second, "running", time.Now()),
		fleet.Event(forgotten, "terminated", time.Now()),
	}
	l.SetFault(zoneOutage(unreachable, held))
	if again, _ := labtest.Deliver(t, l.Functions[provision], bodies...); !slices.Equal(again, []int{1}) {
		t.Errorf("want back only the message of the instance in the zone without service, got %v\nlogs:\n%s", again, lastOf(l.Functions[provision].Logs()))
	}
	wantGranted(t, first)
	wantGranted(t, second)
	if left := objects(t, unreachable); len(left) > 0 {
		t.Errorf("want nothing made for an instance that EC2 does not describe, got %q", left)
	}
	if kind := kindLogged(t, l.Functions[provision].Logs, unreachable.ID); kind != retry {
		t.Errorf("want kind retry, got %q", kind)
	}

	terminate(t, first)
	bodies = [][]byte{fleet.Event(held, "terminated", time.Now()), fleet.Event(first, "terminated", time.Now())}
	if again, _ := labtest.Deliver(t, l.Functions[deprovision], bodies...); !slices.Equal(again, []int{0}) {
		t.Errorf("want back only the message of the instance in the zone without service, got %v\nlogs:\n%s", again, lastOf(l.Functions[deprovision].Logs()))
	}
	wantGranted(t, held) // an outage is no absence
	wantGone(t, first)

	l.SetFault(nil)
	untilDone(t, l.Functions[provision], unreachable, fleet.Event(unreachable, "running", time.Now()))
	wantGranted(t, unreachable)
}
