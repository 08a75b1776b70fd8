// Command recording writes the instance of each event into the table, after reading
// it from EC2 and calling Vault's health.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

func main() { lambda.Start(handle) }

func handle(ctx context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
	var response events.SQSEventResponse
	for _, r := range e.Records {
		if err := one(ctx, r.Body); err != nil {
			fmt.Println("failed:", err)
			response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: r.MessageId})
		}
	}
	return response, nil
}

func one(ctx context.Context, body string) error {
	var event struct {
		Account string
		Detail  struct {
			ID string `json:"instance-id"`
		}
	}
	if err := json.Unmarshal([]byte(body), &event); err != nil {
		return err
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	seen, err := ec2.NewFromConfig(cfg).DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{event.Detail.ID}})
	if err != nil {
		return err
	}
	ca, err := secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(os.Getenv("VAULT_CA_SECRET_ARN"))})
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(aws.ToString(ca.SecretString)))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	health, err := client.Get(os.Getenv("VAULT_ADDR") + "/v1/sys/health")
	if err != nil {
		return err
	}
	health.Body.Close()
	_, err = dynamodb.NewFromConfig(cfg).PutItem(ctx, &dynamodb.PutItemInput{
		TableName: aws.String(os.Getenv("TABLE_NAME")),
		Item: map[string]types.AttributeValue{
			"pk":      &types.AttributeValueMemberS{Value: "instance#" + event.Detail.ID},
			"account": &types.AttributeValueMemberS{Value: event.Account},
			"address": &types.AttributeValueMemberS{Value: aws.ToString(seen.Reservations[0].Instances[0].PrivateIpAddress)},
			"vault":   &types.AttributeValueMemberS{Value: health.Status},
		},
	})
	return err
}
