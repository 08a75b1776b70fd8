package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// tableFields are the properties that have the same names in CloudFormation and
// the DynamoDB API and that DynamoDB Local implements.
var tableFields = []string{
	"AttributeDefinitions", "KeySchema", "BillingMode", "ProvisionedThroughput", "GlobalSecondaryIndexes", "LocalSecondaryIndexes",
}

// makeTables creates the template's tables in DynamoDB Local under moto's names
// for them, because moto's own tables lose writes under load.
func (s *Stack) makeTables(ctx context.Context, client *dynamodb.Client) error {
	for id, properties := range s.ofType("AWS::DynamoDB::Table") {
		name := s.Resources[id]
		in := &dynamodb.CreateTableInput{}
		chosen := map[string]any{}
		for _, field := range tableFields {
			if value, ok := properties[field]; ok {
				chosen[field] = value
			}
		}
		text, err := json.Marshal(chosen)
		if err != nil {
			return fmt.Errorf("reading table %s of the template: %w", id, err)
		}
		if err := json.Unmarshal(text, in); err != nil {
			return fmt.Errorf("reading table %s of the template (its keys must be literals): %w", id, err)
		}
		in.TableName = &name
		if _, err := client.CreateTable(ctx, in); err != nil {
			return fmt.Errorf("creating table %s (%s) in DynamoDB Local: %w", id, name, err)
		}
		waiter := dynamodb.NewTableExistsWaiter(client, func(o *dynamodb.TableExistsWaiterOptions) {
			o.MinDelay, o.MaxDelay = 20*time.Millisecond, 200*time.Millisecond
		})
		if err := waiter.Wait(ctx, &dynamodb.DescribeTableInput{TableName: &name}, 20*time.Second); err != nil {
			return fmt.Errorf("waiting for table %s (%s): %w", id, name, err)
		}
		if ttl := object(properties["TimeToLiveSpecification"]); ttl["Enabled"] == true {
			attribute, _ := ttl["AttributeName"].(string)
			_, err := client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
				TableName:               &name,
				TimeToLiveSpecification: &dynamotypes.TimeToLiveSpecification{AttributeName: &attribute, Enabled: aws.Bool(true)},
			})
			if err != nil {
				return fmt.Errorf("turning on expiry by %q for table %s (%s): %w", attribute, id, name, err)
			}
		}
		s.Tables[id] = name
	}
	return nil
}
