package awsmodel

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/queue"
)

const (
	retry  = "retry"  // the work comes back
	refuse = "refuse" // the work is recorded and done with
)

// outage are the errors of DynamoDB that say nothing about the request.
var outage = []string{
	"ProvisionedThroughputExceededException", "ResourceNotFoundException", "RequestLimitExceeded", "InternalServerError", "ThrottlingException",
}

// answers are the errors of each operation and what the program makes of them. All that a model names are here. Those that no model
// names are AWS's common errors, and those of EC2, whose model names none, and of Auto Scaling's hooks.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
var answers = map[string]map[string][]string{
	"dynamodb.GetItem":      {retry: outage},
	"dynamodb.BatchGetItem": {retry: outage},
	"dynamodb.Scan":         {retry: outage},
	"dynamodb.PutItem": {retry: slices.Concat(outage, []string{
		"ConditionalCheckFailedException", "ItemCollectionSizeLimitExceededException", "TransactionConflictException", "ReplicatedWriteConflictException",
	})},
	"dynamodb.TransactWriteItems": {retry: slices.Concat(outage, []string{
		"TransactionCanceledException", "TransactionInProgressException", "IdempotentParameterMismatchException",
	})},
	"dynamodb.DescribeTable":             {retry: {"ResourceNotFoundException", "InternalServerError", "AccessDeniedException"}},
	"dynamodb.DescribeContinuousBackups": {retry: {"TableNotFoundException", "InternalServerError", "AccessDeniedException"}},
	"dynamodb.DescribeTimeToLive":        {retry: {"ResourceNotFoundException", "InternalServerError", "AccessDeniedException"}},
	"ec2.DescribeInstances": {retry: {
		"RequestLimitExceeded", "InternalError", "Unavailable", "UnauthorizedOperation", "AuthFailure", "OptInRequired", "Blocked", "PendingVerification",
		"InvalidInstanceID.NotFound",
	}},
	"ec2.CreateTags": {
		retry:  {"RequestLimitExceeded", "InternalError", "Unavailable"},
		refuse: {"UnauthorizedOperation", "TagLimitExceeded", "IncorrectState", "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"},
	},
	"iam.GetInstanceProfile": {retry: {"ServiceFailure", "Throttling", "AccessDenied"}, refuse: {"NoSuchEntity"}},
	"sts.AssumeRole": {retry: {
		"MalformedPolicyDocument", "PackedPolicyTooLarge", "RegionDisabledException", "ExpiredTokenException", "AccessDenied", "Throttling",
	}},
	"sts.GetCallerIdentity": {retry: {"InvalidClientTokenId", "UnrecognizedClientException", "Throttling"}},
	"sqs.SendMessageBatch": {retry: {
		"TooManyEntriesInBatchRequest", "EmptyBatchRequest", "BatchEntryIdsNotDistinct", "BatchRequestTooLong", "InvalidBatchEntryId", "UnsupportedOperation",
		"RequestThrottled", "QueueDoesNotExist", "InvalidSecurity", "KmsDisabled", "KmsInvalidState", "KmsNotFound", "KmsOptInRequired", "KmsThrottled",
		"KmsAccessDenied", "KmsInvalidKeyUsage", "InvalidAddress",
	}},
	"eventbridge.PutEvents": {retry: {"InternalException"}},
	"secretsmanager.GetSecretValue": {retry: {
		"ResourceNotFoundException", "InvalidParameterException", "InvalidRequestException", "DecryptionFailure", "InternalServiceError",
	}},
	"autoscaling.DescribeAutoScalingInstances":   {retry: {"InvalidNextToken", "ResourceContention", "Throttling"}},
	"autoscaling.CompleteLifecycleAction":        {retry: {"ResourceContention", "Throttling"}, refuse: {"ValidationError"}},
	"autoscaling.RecordLifecycleActionHeartbeat": {retry: {"ResourceContention", "Throttling"}, refuse: {"ValidationError"}},
}

// place and ref are an instance of the function's own account.
var (
	place = facts.Place{Account: parts.AccountID, Region: "us-east-1"}
	ref   = facts.Ref{ID: "i-0123456789abcdef0", Place: place}
)

// calls make one call of each operation by the program's own code, with a look-up of instances.
var calls = map[string]func(context.Context, aws.Config, *instance.Lookup) error{
	"dynamodb.GetItem": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		_, err := ledgerOf(c).Get(ctx, ref.ID)
		return err
	},
	"dynamodb.BatchGetItem": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		_, err := ledgerOf(c).GetSome(ctx, []string{ref.ID, "i-1"})
		return err
	},
	"dynamodb.Scan": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		return ledgerOf(c).Scan(ctx, ledger.Visitor{Record: func(ledger.Record) {}, Claim: func(ledger.Name, ledger.Claim) {}})
	},
	"dynamodb.PutItem": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		_, err := ledgerOf(c).Put(ctx, ledger.Write{New: ledger.Record{InstanceID: ref.ID}})
		return err
	},
	"dynamodb.TransactWriteItems": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		_, err := ledgerOf(c).Put(ctx, ledger.Write{New: ledger.Record{InstanceID: ref.ID}, Claims: []ledger.Name{{Under: "pki", Text: "a.example"}}})
		return err
	},
	"dynamodb.DescribeTable": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		_, err := tableOf(c).Shape(ctx)
		return err
	},
	"dynamodb.DescribeContinuousBackups": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		_, err := tableOf(c).Recovery(ctx)
		return err
	},
	"dynamodb.DescribeTimeToLive": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		_, err := tableOf(c).Expiry(ctx)
		return err
	},
	"ec2.DescribeInstances": func(ctx context.Context, _ aws.Config, l *instance.Lookup) error {
		return l.Describe(ctx, []facts.Ref{ref})[ref].Err
	},
	"ec2.CreateTags": func(ctx context.Context, _ aws.Config, l *instance.Lookup) error {
		return instance.NewTagger(l).Tag(ctx, place, []string{ref.ID}, "key", "value")[ref.ID]
	},
	"iam.GetInstanceProfile": func(ctx context.Context, _ aws.Config, l *instance.Lookup) error {
		_, err := l.RoleNow(ctx, facts.Instance{
			ID: ref.ID, Account: place.Account, Region: place.Region, IAMInstanceProfileARN: "arn:aws:iam::" + place.Account + ":instance-profile/p",
			ObservedAt: time.Now(),
		})
		return err
	},
	"sts.AssumeRole": func(ctx context.Context, _ aws.Config, l *instance.Lookup) error {
		return l.TryRole(ctx, memberAccount)
	},
	"sts.GetCallerIdentity": func(ctx context.Context, _ aws.Config, l *instance.Lookup) error {
		_, err := l.Account(ctx)
		return err
	},
	"sqs.SendMessageBatch": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		return queue.New(sqs.NewFromConfig(c).SendMessageBatch, "http://queue").SendBody(ctx, []byte("{}"), 0)
	},
	"eventbridge.PutEvents": func(ctx context.Context, c aws.Config, _ *instance.Lookup) error {
		return audit.NewEventBridge(eventbridge.NewFromConfig(c).PutEvents, "bus").Put(ctx, []audit.Event{{}})[0]
	},
	"autoscaling.DescribeAutoScalingInstances": func(ctx context.Context, _ aws.Config, l *instance.Lookup) error {
		return autoscaling.New(l.Config).States(ctx, []facts.Ref{ref})[ref].Err
	},
	"autoscaling.CompleteLifecycleAction": func(ctx context.Context, _ aws.Config, l *instance.Lookup) error {
		return autoscaling.New(l.Config).Complete(ctx, ref, event.Hook{Group: "g", Name: "h"}, "CONTINUE")
	},
	"autoscaling.RecordLifecycleActionHeartbeat": func(ctx context.Context, _ aws.Config, l *instance.Lookup) error {
		return autoscaling.New(l.Config).Prolong(ctx, ref, event.Hook{Group: "g", Name: "h"})
	},
}

func ledgerOf(c aws.Config) *ledger.Ledger {
	return ledger.New(ledger.NewAPI(dynamodb.NewFromConfig(c)), "table", time.Now)
}

func tableOf(c aws.Config) *ledger.Table {
	return ledger.NewTable(ledger.NewTableAPI(dynamodb.NewFromConfig(c)), "table")
}

// refusing returns a server that answers an operation with an error, in the form of its protocol, and who the caller is to any other.
func refusing(t *testing.T, protocol, operation, code string) *httptest.Server {
	t.Helper()
	form := map[string]string{
		"json":  `{"__type":"%s","message":"no"}`,
		"query": `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>no</Message></Error><RequestId>r</RequestId></ErrorResponse>`,
		"ec2":   `<Response><Errors><Error><Code>%s</Code><Message>The instance ID '` + ref.ID + `' does not exist</Message></Error></Errors><RequestID>r</RequestID></Response>`,
	}[protocol]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, target, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		if target == operation || r.FormValue("Action") == operation {
			status := http.StatusBadRequest
			if strings.HasPrefix(code, "Internal") || code == "Unavailable" || code == "ServiceFailure" {
				status = http.StatusInternalServerError
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, form, code)
			return
		}
		fmt.Fprintf(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:sts::%[1]s:assumed-role/r/s</Arn><Account>%[1]s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`, place.Account)
	}))
	t.Cleanup(s.Close)
	return s
}

// Each error that AWS's models name for an operation is in the table, and the program makes of each what the table says.
func TestErrors_AreTakenAsTheTableSays(t *testing.T) {
	models := find(t)
	for _, operation := range slices.Sorted(maps.Keys(stack.Operations)) {
		service, call, _ := strings.Cut(operation, ".")
		model, err := models.Of(strings.Replace(service, "eventbridge", "events", 1))
		if err != nil {
			t.Fatal(err)
		}
		known := slices.Concat(slices.Collect(maps.Values(answers[operation]))...)
		for _, code := range model.Errors(call) {
			if !slices.Contains(known, code) {
				t.Errorf("%s: AWS's model names the error %s: say in the table what the program makes of it", operation, code)
			}
		}
		for outcome, codes := range answers[operation] {
			for _, code := range codes {
				if got := outcomeOf(t, model.Metadata.Protocol, operation, code); got != outcome {
					t.Errorf("%s answers %s: want it to be %s, seen %s", operation, code, outcome, got)
				}
			}
		}
	}
}

// outcomeOf returns what the program makes of an error of an operation.
func outcomeOf(t *testing.T, protocol, operation, code string) string {
	t.Helper()
	try, ok := calls[operation]
	if !ok {
		return retry // the secrets of Vault's CA and login: each fault of theirs fails the invocation
	}
	_, name, _ := strings.Cut(operation, ".")
	c := aws.Config{
		Region: place.Region, BaseEndpoint: aws.String(refusing(t, protocol, name, code).URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
	}
	err := try(t.Context(), c, instance.New(instance.Options{Config: c, MemberRole: "member", Accounts: []string{memberAccount}}))
	if err == nil {
		return "no fault"
	}
	if !strings.Contains(err.Error(), code) && code != "ConditionalCheckFailedException" {
		t.Errorf("%s answers %s: want the error to name it, seen %v", operation, code, err)
	}
	return fault.KindOf(err).String()
}
