package scenes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// visibility is the queues' visibility timeout in seconds: the template's two minutes, by the clock of the outage.
const visibility = "3"

// limit bounds one scene with its preparation.
const limit = 10 * time.Minute

// Parameters returns the template's parameters of the recorded stack: the lab's, and a readiness tag.
func Parameters() map[string]string {
	p := lab.Parameters()
	p["ReadyTag"] = "vault-identity"
	return p
}

// Record plays the named scenes, or all without a name, in a world with these parameters and a tap before Vault, and saves each
// recording into a folder.
func Record(ctx context.Context, w *lab.World, folder string, names ...string) error {
	client := sqs.NewFromConfig(w.AWS)
	for _, id := range []string{"ProvisionQueue", "DeprovisionQueue"} {
		if _, err := client.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{
			QueueUrl: aws.String(w.Stack.Resources[id]), Attributes: map[string]string{"VisibilityTimeout": visibility},
		}); err != nil {
			return fmt.Errorf("shortening the visibility timeout of %s: %w", id, err)
		}
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	for _, s := range []scene{quiet(), outage(), storm()} {
		if len(names) > 0 && !wanted[s.name] {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, limit)
		recording, err := record(limited, w, s)
		cancel()
		if err != nil {
			return err
		}
		if err := recording.Save(folder); err != nil {
			return err
		}
	}
	return nil
}

// quiet is a day with a few starts and ends, a comparison in each hour and one policy that is deleted by hand.
func quiet() scene {
	const hour = 3 * time.Second
	return scene{
		name: "quiet", title: "A quiet day", scale: 1200, length: 24 * hour,
		before: func(ctx context.Context, r *recorder) error {
			if err := r.launch(ctx, 20); err != nil {
				return err
			}
			return r.granted(ctx)
		},
		play: func(ctx context.Context, r *recorder) error {
			starts, ends := map[int]int{6: 1, 7: 3, 8: 4, 9: 1, 12: 2, 13: 1, 16: 1}, map[int]int{12: 1, 17: 2, 18: 4, 19: 3, 21: 1}
			for h := range 24 {
				r.until(ctx, time.Duration(h)*hour)
				if h == 14 {
					policy := grant.PolicyName(r.fleet[0].ID, "node")
					if err := r.world.Vault.Sys().DeletePolicyWithContext(ctx, policy); err != nil {
						return fmt.Errorf("deleting a policy by hand: %w", err)
					}
				}
				if err := r.compare(ctx); err != nil {
					return err
				}
				for range starts[h] {
					if err := r.start(ctx); err != nil {
						return err
					}
				}
				if err := r.end(ctx, ends[h]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// sealed answers each call as a sealed Vault does.
func sealed(tap.Call) *tap.Fault {
	return &tap.Fault{Status: http.StatusServiceUnavailable, Body: []byte(`{"errors":["Vault is sealed"]}`)}
}

// outage is 75 minutes with starts and ends all the time, of which Vault is sealed for 40. A comparison is due in the middle.
func outage() scene {
	const minute = 1500 * time.Millisecond
	return scene{
		name: "outage", title: "Vault is sealed for 40 minutes", scale: 40, length: 75 * minute,
		before: func(ctx context.Context, r *recorder) error {
			if err := r.launch(ctx, 30); err != nil {
				return err
			}
			return r.granted(ctx)
		},
		play: func(ctx context.Context, r *recorder) error {
			defer r.world.Taps.Vault.SetFault(nil)
			for m := range 75 {
				r.until(ctx, time.Duration(m)*minute)
				switch m {
				case 10:
					r.world.Taps.Vault.SetFault(sealed)
				case 50:
					r.world.Taps.Vault.SetFault(nil)
				}
				if err := r.minuteOfOutage(ctx, m); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// minuteOfOutage starts an instance, ends one in every third minute, and compares the fleet when that is due.
func (r *recorder) minuteOfOutage(ctx context.Context, m int) error {
	if m == 5 || m == 30 || m == 65 {
		if err := r.compare(ctx); err != nil {
			return err
		}
	}
	if m >= 60 {
		return nil
	}
	err := r.start(ctx)
	if m%3 == 0 {
		err = errors.Join(err, r.end(ctx, 1))
	}
	return err
}

// storm is an hour in which 150 instances start as fast as moto takes their events, and then 60 of them end, with one of each thing
// that a person must look at.
func storm() scene {
	const minute = 1500 * time.Millisecond
	t := &troubles{}
	return scene{
		name: "storm", title: "150 instances start, then 60 end", scale: 40, length: 60 * minute,
		before: func(ctx context.Context, r *recorder) error {
			// A comparison of the whole fleet would grant the storm's instances before their events come.
			if err := errors.Join(r.compare(ctx), r.launch(ctx, 150)); err != nil {
				return err
			}
			return t.prepare(ctx, r)
		},
		play: func(ctx context.Context, r *recorder) error {
			defer r.world.Taps.AWS.SetFault(nil)
			r.until(ctx, 5*minute)
			if err := t.starts(ctx, r); err != nil {
				return err
			}
			for _, i := range r.fleet {
				if err := r.world.Fleet.Announce(ctx, i, "running"); err != nil {
					return err
				}
			}
			r.until(ctx, 30*minute)
			if err := errors.Join(r.end(ctx, 60), t.ends(ctx, r)); err != nil {
				return err
			}
			r.until(ctx, 55*minute)
			return r.compare(ctx)
		},
	}
}
