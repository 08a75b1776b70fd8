// Command emptyhandler is a function that makes the same AWS clients as the real functions and does nothing. Its start is
// the least that theirs could take.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	c, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "emptyhandler:", err)
		os.Exit(1)
	}
	calls := []any{
		dynamodb.NewFromConfig(c).GetItem, ec2.NewFromConfig(c).DescribeInstances, iam.NewFromConfig(c).GetInstanceProfile,
		sts.NewFromConfig(c).GetCallerIdentity, secretsmanager.NewFromConfig(c).GetSecretValue,
		eventbridge.NewFromConfig(c).PutEvents, sqs.NewFromConfig(c).SendMessageBatch,
	}
	lambda.Start(func(context.Context) (int, error) { return len(calls), nil })
}
