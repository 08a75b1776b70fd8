package tryout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
)

// remove removes what this run, or an earlier one of the name, made. Only what bears the run's tag is removed.
func (t *tryout) remove(ctx context.Context) {
	t.j.begin("Removal")
	backwards := slices.Clone(t.places)
	slices.Reverse(backwards)
	for _, p := range backwards {
		type step struct {
			name string
			run  func(context.Context, *place) error
		}
		instances, network := step{"the instances", t.terminate}, step{"the network", t.deletePlace}
		steps := []step{
			instances,
			{"the member stack", func(ctx context.Context, p *place) error { return t.deleteStack(ctx, p, t.memberStack()) }},
			network,
		}
		if p.kind == home {
			steps = []step{
				{"the Auto Scaling groups", func(ctx context.Context, p *place) error { return t.deleteStack(ctx, p, t.groupsStack()) }},
				instances,
				{"the deployment", t.deleteDeployment},
				network,
			}
		}
		for _, s := range steps {
			since := time.Now()
			t.j.check(fmt.Sprintf("Removed in %s: %s", p, s.name), since, s.run(ctx, p))
		}
	}
}

// find returns a stack; ok is false if there is none. A stack without the run's tag is an error: it is not ours to delete.
func (t *tryout) find(ctx context.Context, p *place, name string) (found deployed.Stack, ok bool, err error) {
	found, err = deployed.FindStack(ctx, p.aws, name)
	// A change set that was not executed has neither resources nor tags.
	isEmpty := found.Status == string(cfntypes.StackStatusReviewInProgress)
	switch {
	case errors.Is(err, deployed.ErrNoStack):
		return found, false, nil
	case err != nil:
		return found, false, err
	case !isEmpty && found.Tags[tagKey] != t.o.Name:
		return found, false, fmt.Errorf("stack %s in %s does not bear the tag %s=%s: it stays. Delete it by hand if it is of a tryout", name, p, tagKey, t.o.Name)
	}
	return found, true, nil
}

// deleteStack deletes a stack that bears the run's tag and waits until it is gone. CloudFormation deletes no stack that it updates.
func (t *tryout) deleteStack(ctx context.Context, p *place, name string) error {
	var found deployed.Stack
	var ok bool
	err := t.await(ctx, stackPatience, func() (err error) {
		found, ok, err = t.find(ctx, p, name)
		if err == nil && isChanging(found.Status) {
			err = fmt.Errorf("stack %s in %s is %s: wait, and run vault-ec2 tryout --remove", name, p, found.Status)
		}
		return err
	})
	if err != nil || !ok {
		return err
	}
	t.j.doing("deleting stack %s in %s", name, p)
	client := cloudformation.NewFromConfig(p.aws)
	err = within(ctx, func(ctx context.Context) error {
		_, err := client.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: &found.ID})
		return err
	})
	if err != nil {
		return fmt.Errorf("deleting stack %s in %s: %w", name, p, err)
	}
	return t.awaitStack(ctx, p.aws, found.ID, cfntypes.StackStatusDeleteComplete)
}

// isChanging reports whether an update of a stack is under way.
func isChanging(status string) bool {
	return strings.HasPrefix(status, "UPDATE_") && strings.HasSuffix(status, "_IN_PROGRESS")
}

// terminate ends the instances that bear the run's tag and waits for them.
func (t *tryout) terminate(ctx context.Context, p *place) error {
	client, empties := ec2.NewFromConfig(p.aws), 0
	return t.await(ctx, endPatience, func() error {
		ids, err := t.running(ctx, client)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			if empties++; empties < 2 { // EC2 may not show an instance at once
				return fmt.Errorf("the instances in %s are listed again", p)
			}
			return nil
		}
		empties = 0
		if err := t.terminateIDs(ctx, p, ids); err != nil {
			return err
		}
		return fmt.Errorf("instances %v are not terminated yet", ids)
	})
}

func (t *tryout) terminateIDs(ctx context.Context, p *place, ids []string) error {
	return within(ctx, func(ctx context.Context) error {
		if _, err := ec2.NewFromConfig(p.aws).TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids}); err != nil {
			return fmt.Errorf("terminating %v in %s: %w", ids, p, err)
		}
		return nil
	})
}

// running returns the instances with the run's tag that are not terminated. CloudFormation gives Vault's instance the tag too: it goes
// with its stack.
func (t *tryout) running(ctx context.Context, client *ec2.Client) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var ids []string
	in := &ec2.DescribeInstancesInput{Filters: []types.Filter{
		{Name: aws.String("tag:" + tagKey), Values: []string{t.o.Name}},
		{Name: aws.String("instance-state-name"), Values: []string{"pending", "running", "shutting-down", "stopping", "stopped"}},
	}}
	for isFirst := true; isFirst || in.NextToken != nil; isFirst = false {
		page, err := client.DescribeInstances(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("listing the instances with the tag %s=%s: %w", tagKey, t.o.Name, err)
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				isOfStack := slices.ContainsFunc(i.Tags, func(tag types.Tag) bool { return aws.ToString(tag.Key) == "aws:cloudformation:stack-name" })
				if !isOfStack {
					ids = append(ids, aws.ToString(i.InstanceId))
				}
			}
		}
		in.NextToken = page.NextToken
	}
	return ids, nil
}

// deleteDeployment deletes the deployment's stack, and the ledger, which CloudFormation keeps.
func (t *tryout) deleteDeployment(ctx context.Context, p *place) error {
	tables, err := t.ledgers(ctx, p)
	if err != nil {
		return err
	}
	if err := t.deleteStack(ctx, p, t.o.Name); err != nil {
		return err
	}
	var errs []error
	for _, table := range tables {
		t.j.doing("deleting table %s", table)
		errs = append(errs, t.deleteTable(ctx, p, table))
	}
	return errors.Join(errs...)
}

// deleteTable deletes a table, although it is protected. The change of the protection takes a moment, in which DynamoDB refuses the rest.
func (t *tryout) deleteTable(ctx context.Context, p *place, table string) error {
	client := dynamodb.NewFromConfig(p.aws)
	err := within(ctx, func(ctx context.Context) error {
		_, err := client.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: &table, DeletionProtectionEnabled: aws.Bool(false)})
		return err
	})
	if err != nil {
		return fmt.Errorf("ending the deletion protection of table %s: %w", table, err)
	}
	return t.await(ctx, stackPatience, func() error {
		err := within(ctx, func(ctx context.Context) error {
			_, err := client.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &table})
			return err
		})
		if err != nil {
			return fmt.Errorf("deleting table %s: %w", table, err)
		}
		return nil
	})
}

// ledgers returns the tables that the deployment's stack made and that exist: those of a stack that is deleted already too, if the
// removal was interrupted. CloudFormation knows a deleted stack by its ID for 90 days.
func (t *tryout) ledgers(ctx context.Context, p *place) ([]string, error) {
	var stacks []string
	found, ok, err := t.find(ctx, p, t.o.Name)
	if err != nil {
		return nil, err
	}
	if ok {
		stacks = append(stacks, found.ID)
	}
	deleted, err := t.deletedStacks(ctx, p)
	if err != nil {
		return nil, err
	}
	for _, id := range deleted {
		found, err := deployed.FindStack(ctx, p.aws, id)
		if err != nil {
			return nil, err
		}
		if found.Tags[tagKey] == t.o.Name { // another deployment may have had the name
			stacks = append(stacks, id)
		}
	}
	var tables []string
	for _, stack := range stacks {
		err := t.eachResource(ctx, p, stack, func(r cfntypes.StackResourceSummary) {
			if aws.ToString(r.ResourceType) == "AWS::DynamoDB::Table" && r.PhysicalResourceId != nil {
				tables = append(tables, *r.PhysicalResourceId)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return t.existing(ctx, p, tables)
}

// deletedStacks returns the IDs of the deleted stacks with the deployment's name.
func (t *tryout) deletedStacks(ctx context.Context, p *place) ([]string, error) {
	var ids []string
	err := within(ctx, func(ctx context.Context) error {
		client := cloudformation.NewFromConfig(p.aws)
		in := &cloudformation.ListStacksInput{StackStatusFilter: []cfntypes.StackStatus{cfntypes.StackStatusDeleteComplete}}
		for isFirst := true; isFirst || in.NextToken != nil; isFirst = false {
			page, err := client.ListStacks(ctx, in)
			if err != nil {
				return fmt.Errorf("listing the deleted stacks: %w", err)
			}
			for _, s := range page.StackSummaries {
				if aws.ToString(s.StackName) == t.o.Name {
					ids = append(ids, aws.ToString(s.StackId))
				}
			}
			in.NextToken = page.NextToken
		}
		return nil
	})
	return ids, err
}

// existing returns those tables that exist.
func (t *tryout) existing(ctx context.Context, p *place, tables []string) ([]string, error) {
	var found []string
	client := dynamodb.NewFromConfig(p.aws)
	for _, table := range tables {
		err := within(ctx, func(ctx context.Context) error {
			_, err := client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &table})
			return err
		})
		absent := (*dbtypes.ResourceNotFoundException)(nil)
		switch {
		case errors.As(err, &absent):
		case err != nil:
			return nil, fmt.Errorf("looking up table %s: %w", table, err)
		default:
			found = append(found, table)
		}
	}
	return found, nil
}

// deletePlace empties the bucket, which CloudFormation deletes only then, and deletes the network's stack.
func (t *tryout) deletePlace(ctx context.Context, p *place) error {
	found, ok, err := t.find(ctx, p, t.placeStack())
	if err != nil || !ok {
		return err
	}
	var buckets []string
	err = t.eachResource(ctx, p, found.ID, func(r cfntypes.StackResourceSummary) {
		if aws.ToString(r.ResourceType) == "AWS::S3::Bucket" && r.PhysicalResourceId != nil && r.ResourceStatus != cfntypes.ResourceStatusDeleteComplete {
			buckets = append(buckets, *r.PhysicalResourceId)
		}
	})
	if err != nil {
		return err
	}
	client := s3.NewFromConfig(p.aws)
	for _, bucket := range buckets {
		if err := within(ctx, func(ctx context.Context) error { return empty(ctx, client, bucket) }); err != nil {
			return err
		}
	}
	return t.deleteStack(ctx, p, t.placeStack())
}

func empty(ctx context.Context, client *s3.Client, bucket string) error {
	in := &s3.ListObjectsV2Input{Bucket: &bucket}
	for isFirst := true; isFirst || in.ContinuationToken != nil; isFirst = false {
		page, err := client.ListObjectsV2(ctx, in)
		if err != nil {
			return fmt.Errorf("listing bucket %s: %w", bucket, err)
		}
		in.ContinuationToken = page.NextContinuationToken
		if len(page.Contents) == 0 {
			continue
		}
		var all []s3types.ObjectIdentifier
		for _, o := range page.Contents {
			all = append(all, s3types.ObjectIdentifier{Key: o.Key})
		}
		answer, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &s3types.Delete{Objects: all, Quiet: aws.Bool(true)}})
		if err == nil && len(answer.Errors) > 0 {
			err = fmt.Errorf("%s: %s", aws.ToString(answer.Errors[0].Key), aws.ToString(answer.Errors[0].Message))
		}
		if err != nil {
			return fmt.Errorf("emptying bucket %s: %w", bucket, err)
		}
	}
	return nil
}

// shrinkGroups has the groups end their instances.
func (t *tryout) shrinkGroups(ctx context.Context) {
	client := autoscaling.NewFromConfig(t.home().aws)
	for _, h := range t.hosts {
		if h.group == "" {
			continue
		}
		t.j.doing("shrinking %s to none", h.group)
		err := within(ctx, func(ctx context.Context) error {
			_, err := client.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: &h.group, DesiredCapacity: aws.Int32(0)})
			return err
		})
		if err != nil {
			t.j.check("Group "+h.group+" ends its instance", time.Now(), err)
		}
	}
}
