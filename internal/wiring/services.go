package wiring

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	eventbridgetypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
)

// calledServices returns the services that the settings make the functions call and that no other check of the doctor calls.
func (p *parts) calledServices() []doctor.Service {
	s, text := p.settings, aws.String("-")
	region := p.aws.Region
	all := []doctor.Service{{
		Name: "autoscaling", Region: region, Use: "lifecycle hooks", Optional: true, Reach: reach(p.aws, func(ctx context.Context, c aws.Config) error {
			_, err := autoscaling.NewFromConfig(c).DescribeAutoScalingInstances(ctx, &autoscaling.DescribeAutoScalingInstancesInput{})
			return err
		}),
	}}
	if s.Reconcile.ConvergeQueueURL != "" || s.Reconcile.QueueURL != "" || s.ProvisionQueueURL != "" {
		all = append(all, doctor.Service{Name: "sqs", Region: region, Use: "messages to their own queues", Reach: reach(p.aws, func(ctx context.Context, c aws.Config) error {
			_, err := sqs.NewFromConfig(c).SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: text, Entries: []sqstypes.SendMessageBatchRequestEntry{{Id: text, MessageBody: text}}})
			return err
		})})
	}
	if s.EventBus != "" {
		all = append(all, doctor.Service{Name: "events", Region: region, Use: "audit events", Reach: reach(p.aws, func(ctx context.Context, c aws.Config) error {
			_, err := eventbridge.NewFromConfig(c).PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []eventbridgetypes.PutEventsRequestEntry{{Detail: text}}})
			return err
		})})
	}
	seen := map[string]bool{}
	for _, secret := range []string{s.Vault.CASecretARN, s.Vault.LoginSecretARN} {
		parsed, err := arn.Parse(secret)
		if err != nil || seen[parsed.Region] {
			continue
		}
		seen[parsed.Region] = true
		there := p.aws.Copy()
		there.Region = parsed.Region
		all = append(all, doctor.Service{Name: "secretsmanager", Region: parsed.Region, Use: "the secrets of Vault's CA and of the login", Reach: reach(there, func(ctx context.Context, c aws.Config) error {
			_, err := secretsmanager.NewFromConfig(c).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: text})
			return err
		})})
	}
	return all
}

// reach returns a function that connects to the endpoint to which the SDK would send a call. The call itself is not sent.
func reach(c aws.Config, call func(context.Context, aws.Config) error) func(context.Context) error {
	return func(ctx context.Context) error {
		c := c.Copy()
		client := c.HTTPClient
		if client == nil {
			client = awshttp.NewBuildableClient()
		}
		c.HTTPClient = knocker{client}
		c.APIOptions = nil // the attempt is no call to measure
		c.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
		if err := call(ctx, c); !errors.Is(err, errAnswered) {
			return err
		}
		return nil
	}
}

// errAnswered ends a call whose endpoint answered.
var errAnswered = errors.New("the endpoint answered")

// knocker is an HTTP client for the SDK that sends "GET /" to the host of a request, without its signature, in place of the
// request. It returns errAnswered for any answer.
type knocker struct{ client aws.HTTPClient }

func (k knocker) Do(r *http.Request) (*http.Response, error) {
	plain, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.URL.Scheme+"://"+r.URL.Host+"/", http.NoBody)
	if err != nil {
		return nil, err
	}
	answer, err := k.client.Do(plain)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", r.URL.Host, err)
	}
	_ = answer.Body.Close() // any answer will do
	return nil, errAnswered
}
