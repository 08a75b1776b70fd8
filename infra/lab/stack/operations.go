package stack

// Operations are the IAM actions of the functions' calls, by the SDK's name of the call.
var Operations = map[string][]string{
	"dynamodb.BatchGetItem": {"dynamodb:BatchGetItem"},
	"dynamodb.GetItem":      {"dynamodb:GetItem"},
	"dynamodb.PutItem":      {"dynamodb:PutItem"},
	// A transaction needs the permission for each of its parts.
	// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html
	"dynamodb.TransactWriteItems":                {"dynamodb:PutItem", "dynamodb:DeleteItem"},
	"dynamodb.Scan":                              {"dynamodb:Scan"},
	"dynamodb.DescribeTable":                     {"dynamodb:DescribeTable"},
	"dynamodb.DescribeContinuousBackups":         {"dynamodb:DescribeContinuousBackups"},
	"dynamodb.DescribeTimeToLive":                {"dynamodb:DescribeTimeToLive"},
	"ec2.DescribeInstances":                      {"ec2:DescribeInstances"},
	"ec2.CreateTags":                             {"ec2:CreateTags"},
	"iam.GetInstanceProfile":                     {"iam:GetInstanceProfile"},
	"secretsmanager.GetSecretValue":              {"secretsmanager:GetSecretValue"},
	"sqs.SendMessageBatch":                       {"sqs:SendMessage"},
	"eventbridge.PutEvents":                      {"events:PutEvents"},
	"autoscaling.DescribeAutoScalingInstances":   {"autoscaling:DescribeAutoScalingInstances"},
	"autoscaling.CompleteLifecycleAction":        {"autoscaling:CompleteLifecycleAction"},
	"autoscaling.RecordLifecycleActionHeartbeat": {"autoscaling:RecordLifecycleActionHeartbeat"},
	"sts.GetCallerIdentity":                      nil, // needs no permission
}
