package tryout

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// cloud does what AWS does and moto does not: it boots the instances with their user data, and sends their events.
type cloud struct {
	t      *testing.T
	world  *lab.World
	places map[string]aws.Config     // by account and region, as account/region
	hears  func(account string) bool // whether the central bus admits an account's events

	running map[string]*machine
	ended   map[string]bool
}

// machine is a booted instance.
type machine struct {
	instance fleet.Instance
	metadata *fleet.Metadata
	process  *exec.Cmd
	done     chan struct{}
}

// start looks at EC2 until the test ends.
func (c *cloud) start() {
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			for at, p := range c.places {
				account, _, _ := strings.Cut(at, "/")
				if err := c.look(ctx, account, p); err != nil && ctx.Err() == nil {
					c.t.Error(err)
					return
				}
			}
			time.Sleep(200 * time.Millisecond)
		}
	})
	c.t.Cleanup(func() {
		stop()
		done.Wait()
		for _, m := range c.running {
			m.end()
		}
	})
}

// look boots new instances of a place and ends those that EC2 has ended.
func (c *cloud) look(ctx context.Context, account string, p aws.Config) error {
	client := ec2.NewFromConfig(p)
	pages := ec2.NewDescribeInstancesPaginator(client, &ec2.DescribeInstancesInput{
		Filters: []types.Filter{{Name: aws.String("tag:Name"), Values: []string{name + "*"}}},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				at := fleet.Instance{ID: aws.ToString(i.InstanceId), AccountID: account, Region: p.Region}
				if i.State.Name == types.InstanceStateNameRunning {
					if err := c.boot(ctx, client, at, i); err != nil {
						return fmt.Errorf("instance %s: %w", at.ID, err)
					}
				}
				if i.State.Name == types.InstanceStateNameTerminated {
					c.end(ctx, at)
				}
			}
		}
	}
	return nil
}

// boot announces an instance and runs its user data.
func (c *cloud) boot(ctx context.Context, client *ec2.Client, at fleet.Instance, i types.Instance) error {
	if c.running[at.ID] != nil || c.ended[at.ID] {
		return nil
	}
	if i.IamInstanceProfile == nil { // moto's groups leave out the launch template's profile
		if err := c.giveProfile(ctx, client, at.ID); err != nil {
			return err
		}
	}
	instance, err := c.world.Fleet.Refresh(ctx, at)
	if err != nil {
		return err
	}
	data, err := client.DescribeInstanceAttribute(ctx, &ec2.DescribeInstanceAttributeInput{InstanceId: &at.ID, Attribute: types.InstanceAttributeNameUserData})
	if err != nil {
		return err
	}
	script, err := base64.StdEncoding.DecodeString(aws.ToString(data.UserData.Value))
	if err != nil {
		return err
	}
	m := &machine{instance: instance, done: make(chan struct{})}
	if m.metadata, err = c.world.Fleet.Metadata(instance, fleet.MetadataOptions{}); err != nil {
		return err
	}
	file := filepath.Join(c.t.TempDir(), "user-data")
	if err := os.WriteFile(file, script, 0o600); err != nil {
		return err
	}
	modules, err := filepath.Abs("testdata")
	if err != nil {
		return err
	}
	m.process = exec.Command("python3", file)
	m.process.Env = append(os.Environ(), "PYTHONPATH="+modules, "PYTHONDONTWRITEBYTECODE=1", "LAB_SOURCE="+instance.PrivateIP, "TRYOUT_PAUSE=1",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT="+m.metadata.URL)
	log, err := os.Create(filepath.Join(c.world.RunDir, instance.ID+".log"))
	if err != nil {
		return err
	}
	m.process.Stdout, m.process.Stderr = log, log
	if err := m.process.Start(); err != nil {
		return err
	}
	go func() {
		_ = m.process.Wait() // its log says why it ended
		_ = log.Close()
		close(m.done)
	}()
	c.running[at.ID] = m
	if !c.hears(at.AccountID) {
		return nil
	}
	return c.world.Fleet.Announce(ctx, instance, "running")
}

// giveProfile gives an instance of a group the profile of the home place.
func (c *cloud) giveProfile(ctx context.Context, client *ec2.Client, id string) error {
	stack, err := homeOutputs(ctx, c.world)
	if err != nil {
		return err
	}
	_, err = client.AssociateIamInstanceProfile(ctx, &ec2.AssociateIamInstanceProfileInput{
		InstanceId: &id, IamInstanceProfile: &types.IamInstanceProfileSpecification{
			Arn: aws.String(stack["InstanceProfileArn"]), Name: aws.String(stack["InstanceProfileArn"][strings.LastIndex(stack["InstanceProfileArn"], "/")+1:]),
		},
	})
	return err
}

// end ends an instance's script and announces its end. A removal deletes the queues before the last instances end; of an event that is
// lost earlier, the run itself hears.
func (c *cloud) end(ctx context.Context, at fleet.Instance) {
	m := c.running[at.ID]
	if m == nil {
		return
	}
	m.end()
	delete(c.running, at.ID)
	c.ended[at.ID] = true
	if !c.hears(at.AccountID) {
		return
	}
	if err := c.world.Fleet.Announce(ctx, m.instance, "terminated"); err != nil {
		c.t.Logf("%v", err)
	}
}

func (m *machine) end() {
	_ = m.process.Process.Kill() // it may have ended
	<-m.done
	_ = m.metadata.Close()
}
