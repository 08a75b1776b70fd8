// Package awsclient configures the AWS SDK for the lab's parts. It is apart from them so that the command that builds and fetches
// them compiles without the SDK.
package awsclient

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// Config returns an AWS configuration for an endpoint of the lab. The access key has
// only letters and digits, because DynamoDB Local refuses other characters.
func Config(endpoint, region string) aws.Config {
	return aws.Config{
		Region:       region,
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("AKIALAB", "lab", ""),
	}
}

// DynamoDB returns a client of a DynamoDB Local.
func DynamoDB(endpoint, region string) *dynamodb.Client {
	return dynamodb.NewFromConfig(Config(endpoint, region))
}
