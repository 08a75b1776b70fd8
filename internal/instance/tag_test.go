package instance_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// tagging tags instances in an EC2 that answers with this error code, or with success.
func tagging(t *testing.T, code string, ids []string) (forms []url.Values, err error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		switch action := r.Form.Get("Action"); {
		case action != "CreateTags":
			fmt.Fprint(w, awsAnswers()[action])
		case code != "":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `<Response><Errors><Error><Code>%s</Code><Message>no</Message></Error></Errors></Response>`, code)
		default:
			forms = append(forms, r.Form)
			fmt.Fprint(w, `<CreateTagsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><return>true</return></CreateTagsResponse>`)
		}
	}))
	defer server.Close()
	l := instance.New(instance.Options{Config: aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
	}})
	err = instance.NewTagger(l).Tag(t.Context(), instance.Place{Account: account, Region: "us-east-1"}, ids, "identity", "ready")
	return forms, err
}

func TestATagGoesToManyInstancesByOneCall(t *testing.T) {
	var ids []string
	for n := range 501 {
		ids = append(ids, fmt.Sprintf("i-%08x", n))
	}
	forms, err := tagging(t, "", ids)
	if err != nil || len(forms) != 2 {
		t.Fatalf("want 501 instances tagged by two calls, got %d, %v", len(forms), err)
	}
	if f := forms[0]; f.Get("ResourceId.500") != ids[499] || f.Get("ResourceId.501") != "" || f.Get("Tag.1.Key") != "identity" || f.Get("Tag.1.Value") != "ready" || f.Get("Tag.2.Key") != "" {
		t.Errorf("the first call says %v, want 500 instances and the one tag", f)
	}
}

func TestWhatEC2WillNeverTakeIsNotTriedAgain(t *testing.T) {
	for code, want := range map[string]fault.Kind{
		"UnauthorizedOperation": fault.Refuse, "InvalidParameterValue": fault.Refuse, "TagLimitExceeded": fault.Refuse,
		"RequestLimitExceeded": fault.Retry, "InternalError": fault.Retry, "InvalidInstanceID.NotFound": fault.Retry,
	} {
		_, err := tagging(t, code, []string{id})
		if err == nil || fault.KindOf(err) != want || !strings.Contains(err.Error(), "identity=ready") {
			t.Errorf("%s: got %v of kind %s, want %s and the tag named", code, err, fault.KindOf(err), want)
		}
	}
}
