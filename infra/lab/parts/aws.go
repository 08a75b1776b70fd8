package parts

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// AccountID is moto's account for unknown callers.
const AccountID = "123456789012"

// Config returns an AWS configuration for an endpoint of the lab. The access key has
// only letters and digits, because DynamoDB Local refuses other characters.
func Config(endpoint, region string) aws.Config {
	return aws.Config{
		Region:       region,
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("AKIALAB", "lab", ""),
	}
}

// Client returns a client of this DynamoDB Local.
func (d *DynamoDBLocal) Client(region string) *dynamodb.Client {
	return dynamodb.NewFromConfig(Config(d.URL, region))
}
