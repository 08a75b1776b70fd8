package parts

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// AccountID is the account that moto puts unknown callers into.
const AccountID = "123456789012"

// Config points the AWS SDK at an endpoint of the lab. The access key has letters
// and digits only, because DynamoDB Local takes no others.
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
