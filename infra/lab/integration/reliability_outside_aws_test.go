package integration

import (
	"fmt"
	"net/http"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// Each of AWS's services has its own form of an error.

func jsonError(status int, code string) func(*lab.Line, tap.Call) *tap.Fault {
	return answers(status, "application/x-amz-json-1.1", fmt.Sprintf(`{"__type":%q,"message":"made by the lab"}`, code))
}

func dynamoError(status int, code, more string) func(*lab.Line, tap.Call) *tap.Fault {
	return answers(status, "application/x-amz-json-1.0", fmt.Sprintf(`{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":"made by the lab"%s}`, code, more))
}

func ec2Error(status int, code string) func(*lab.Line, tap.Call) *tap.Fault {
	return answers(status, "text/xml", fmt.Sprintf(`<Response><Errors><Error><Code>%s</Code><Message>made by the lab</Message></Error></Errors><RequestID>x</RequestID></Response>`, code))
}

func queryError(status int, code string) func(*lab.Line, tap.Call) *tap.Fault {
	return answers(status, "text/xml", fmt.Sprintf(`<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>made by the lab</Message></Error><RequestId>x</RequestId></ErrorResponse>`, code))
}

// dynamoOutages returns the faults of the ledger. A grant takes one read, one transaction for the intent and one write at the
// end.
func dynamoOutages() []outage {
	read, intent, end := call("dynamodb", "GetItem"), call("dynamodb", "TransactWriteItems"), call("dynamodb", "PutItem")
	cancelled := func(code string) func(*lab.Line, tap.Call) *tap.Fault {
		return dynamoError(http.StatusBadRequest, "TransactionCanceledException", fmt.Sprintf(`,"CancellationReasons":[{"Code":%q,"Message":"made by the lab"},{"Code":"None"}]`, code))
	}
	const bad, down = http.StatusBadRequest, http.StatusInternalServerError
	return []outage{
		{name: "DynamoDB throughput exceeded at the read", hits: read, play: dynamoError(bad, "ProvisionedThroughputExceededException", ""), want: retry},
		{name: "DynamoDB throughput exceeded at the intent", hits: intent, play: dynamoError(bad, "ProvisionedThroughputExceededException", ""), want: retry},
		{name: "DynamoDB throughput exceeded at the end", hits: end, play: dynamoError(bad, "ProvisionedThroughputExceededException", ""), want: retry, leased: true},
		{name: "DynamoDB throughput exceeded once", hits: intent, play: once(dynamoError(bad, "ProvisionedThroughputExceededException", "")), want: overcome},
		{name: "DynamoDB throttling at the read", hits: read, play: dynamoError(bad, "ThrottlingException", ""), want: retry},
		{name: "DynamoDB request limit at the intent", hits: intent, play: dynamoError(bad, "RequestLimitExceeded", ""), want: retry},
		{name: "DynamoDB transaction conflict", hits: intent, play: cancelled("TransactionConflict"), want: retry},
		{name: "DynamoDB transaction throttled", hits: intent, play: cancelled("ThrottlingError"), want: retry},
		{name: "DynamoDB transaction out of throughput", hits: intent, play: cancelled("ProvisionedThroughputExceeded"), want: retry},
		{name: "DynamoDB transaction in progress", hits: intent, play: dynamoError(bad, "TransactionInProgressException", ""), want: retry},
		{name: "DynamoDB item in a transaction of others", hits: end, play: dynamoError(bad, "TransactionConflictException", ""), want: retry, leased: true},
		{name: "DynamoDB internal error at the read", hits: read, play: dynamoError(down, "InternalServerError", ""), want: retry},
		{name: "DynamoDB internal error at the intent", hits: intent, play: dynamoError(down, "InternalServerError", ""), want: retry},
		{name: "DynamoDB internal error at the intent, after the write", hits: intent, want: retry, leased: true,
			play: plays(tap.Fault{Status: down, Forward: true, Body: []byte(`{"__type":"InternalServerError"}`)})},
		{name: "DynamoDB internal error at the end, after the write", hits: end, want: retry,
			play: plays(tap.Fault{Status: down, Forward: true, Body: []byte(`{"__type":"InternalServerError"}`)})},
		{name: "the connection to DynamoDB cut at the intent, after the write", hits: intent, play: plays(tap.Fault{CutAfter: true}), want: retry, leased: true},
		{name: "the connection to DynamoDB cut at the end", hits: end, play: plays(tap.Fault{CutBefore: true}), want: retry, leased: true},
		{name: "DynamoDB table gone", hits: read, play: dynamoError(bad, "ResourceNotFoundException", ""), want: retry},
		{name: "DynamoDB access denied", hits: intent, play: dynamoError(bad, "AccessDeniedException", ""), want: retry},
		{name: "a removal, DynamoDB throttling at the tombstone", hits: end, play: dynamoError(bad, "ThrottlingException", ""), want: retry, removal: true},
		{name: "a removal, DynamoDB internal error at the end", hits: intent, play: dynamoError(down, "InternalServerError", ""), want: retry, removal: true, leased: true},
		{name: "a removal, DynamoDB read throttled", hits: read, play: dynamoError(bad, "ProvisionedThroughputExceededException", ""), want: retry, removal: true},
	}
}

// awsOutages returns the faults of EC2, IAM, STS and Secrets Manager.
func awsOutages() []outage {
	describe, profile := call("ec2", "DescribeInstances"), call("iam", "GetInstanceProfile")
	whoami, member := call("sts", "GetCallerIdentity"), call("sts", "AssumeRole")
	ca := call("secretsmanager", "GetSecretValue")
	const bad, denied, down, busy = http.StatusBadRequest, http.StatusForbidden, http.StatusInternalServerError, http.StatusServiceUnavailable
	return []outage{
		{name: "EC2 RequestLimitExceeded", hits: describe, play: ec2Error(busy, "RequestLimitExceeded"), want: retry},
		{name: "EC2 RequestLimitExceeded once", hits: describe, play: once(ec2Error(busy, "RequestLimitExceeded")), want: overcome},
		{name: "EC2 internal error", hits: describe, play: ec2Error(down, "InternalError"), want: retry},
		{name: "EC2 unavailable", hits: describe, play: ec2Error(busy, "Unavailable"), want: retry},
		{name: "EC2 InvalidInstanceID.NotFound right after the launch", hits: describe, play: ec2Error(bad, "InvalidInstanceID.NotFound"), want: retry},
		{name: "EC2 does not show the instance yet, an empty page", hits: describe, play: plays(xml(noInstances)), want: retry},
		{name: "EC2 denies", hits: describe, play: ec2Error(denied, "UnauthorizedOperation"), want: retry},
		{name: "EC2's answer cut in the middle", hits: describe, want: retry,
			play: plays(tap.Fault{Status: http.StatusOK, Header: http.Header{"Content-Type": {"text/xml"}, "Content-Length": {"4096"}}, Body: []byte(noInstances[:80])})},
		{name: "a removal, EC2 RequestLimitExceeded", hits: describe, play: ec2Error(busy, "RequestLimitExceeded"), want: retry, removal: true},
		{name: "a removal, EC2 denies", hits: describe, play: ec2Error(denied, "UnauthorizedOperation"), want: retry, removal: true},
		{name: "IAM throttling", hits: profile, play: queryError(bad, "Throttling"), want: retry, cold: true},
		{name: "IAM does not know the instance profile yet", hits: profile, play: queryError(http.StatusNotFound, "NoSuchEntity"), want: retry, cold: true},
		{name: "IAM denies", hits: profile, play: queryError(denied, "AccessDenied"), want: retry, cold: true},
		{name: "IAM failing", hits: profile, play: queryError(down, "ServiceFailure"), want: retry, cold: true},
		{name: "STS throttling who the function is", hits: whoami, play: queryError(bad, "Throttling"), want: retry, cold: true},
		{name: "STS failing to say who the function is", hits: whoami, play: queryError(down, "InternalFailure"), want: retry, cold: true},
		{name: "STS denies the member role", hits: member, play: queryError(denied, "AccessDenied"), want: retry, cold: true, account: foreignAccount},
		{name: "STS throttling the member role", hits: member, play: queryError(bad, "Throttling"), want: retry, cold: true, account: foreignAccount},
		{name: "STS's region not enabled for the member role", hits: member, play: queryError(denied, "RegionDisabledException"), want: retry, cold: true, account: foreignAccount},
		{name: "the function's own token expired", hits: whoami, play: queryError(denied, "ExpiredToken"), want: retry, cold: true},
		{name: "Secrets Manager throttling", hits: ca, play: jsonError(bad, "ThrottlingException"), want: retry, cold: true},
		{name: "Secrets Manager denies", hits: ca, play: jsonError(bad, "AccessDeniedException"), want: retry, cold: true},
		{name: "Secrets Manager failing", hits: ca, play: jsonError(down, "InternalServiceError"), want: retry, cold: true},
		{name: "Secrets Manager's key disabled", hits: ca, play: jsonError(bad, "DecryptionFailure"), want: retry, cold: true},
		{name: "the connection to Secrets Manager cut", hits: ca, play: plays(tap.Fault{CutBefore: true}), want: retry, cold: true},
	}
}
