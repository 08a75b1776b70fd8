package wiring

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

// CloudTrail shows the user agent of a call.
func TestUserAgent_NamesTheProgramAndVersion(t *testing.T) {
	var seen string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Get("User-Agent") }))
	defer server.Close()
	c := aws.Config{Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}
	identify(&c)
	_, _ = sts.NewFromConfig(c).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if want := "vault-ec2-provisioner/" + version.Product(); !strings.Contains(seen, want) {
		t.Errorf("want %s in the user agent, so that CloudTrail shows which version made a call: got %q", want, seen)
	}
}

func TestMeasure_CountsEachTryAndThrottle(t *testing.T) {
	calls := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls == 1 {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow down"}`))
			return
		}
		_, _ = w.Write([]byte(`{}`))
	}))
	defer server.Close()
	c := aws.Config{Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}
	var s observe.Services
	measure(&c, &s)
	_, err := dynamodb.NewFromConfig(c).GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: aws.String("table"), Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "x"}},
	})
	if err != nil || calls != 2 {
		t.Fatalf("want the second try to succeed, got %v after %d", err, calls)
	}
	_, _ = sts.NewFromConfig(c).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}) // a service that is not measured
	m := &observe.Metrics{}
	m.Collect(&s)
	var out bytes.Buffer
	if err := m.Write(&out, time.Now()); err != nil {
		t.Fatal(err)
	}
	var line struct {
		DynamoDBLatency struct{ Counts []int }
		EC2Latency      *struct{}
		Throttles       int `json:"DynamoDBThrottles"`
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	tries := 0
	for _, n := range line.DynamoDBLatency.Counts {
		tries += n
	}
	if tries != 2 || line.Throttles != 1 || line.EC2Latency != nil {
		t.Errorf("want two calls to DynamoDB, one throttled, and none to others, got %s", out.String())
	}
}
