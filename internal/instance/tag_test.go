package instance_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// tagging tags instances in a fake EC2 that refuses every call which names the instance bad, with this status and code. It
// returns the instances of each call, and Tag's errors.
func tagging(t *testing.T, bad string, status int, code string, ids []string) (calls [][]string, failed map[string]error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		if action := r.Form.Get("Action"); action != "CreateTags" {
			fmt.Fprint(w, awsAnswers()[action])
			return
		}
		var named []string
		for n := 1; r.Form.Get(fmt.Sprint("ResourceId.", n)) != ""; n++ {
			named = append(named, r.Form.Get(fmt.Sprint("ResourceId.", n)))
		}
		calls = append(calls, named)
		if r.Form.Get("Tag.1.Key") != "identity" || r.Form.Get("Tag.1.Value") != "ready" || r.Form.Get("Tag.2.Key") != "" {
			t.Errorf("want the one tag identity=ready, got %v", r.Form)
		}
		if slices.Contains(named, bad) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `<Response><Errors><Error><Code>%s</Code><Message>no</Message></Error></Errors></Response>`, code)
			return
		}
		fmt.Fprint(w, `<CreateTagsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><return>true</return></CreateTagsResponse>`)
	}))
	defer server.Close()
	l := instance.New(instance.Options{Config: aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}})
	failed = instance.NewTagger(l).Tag(t.Context(), facts.Place{Account: account, Region: "us-east-1"}, ids, "identity", "ready")
	return calls, failed
}

func instances(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("i-%08x", i)
	}
	return ids
}

func TestTag_GoesToManyInstancesInOneCall(t *testing.T) {
	calls, failed := tagging(t, "", 0, "", instances(501))
	if len(failed) > 0 || len(calls) != 2 || len(calls[0]) != 500 || len(calls[1]) != 1 {
		t.Errorf("want 501 instances tagged by two calls, got %d calls, %v", len(calls), failed)
	}
}

func TestTag_FailureStaysWithItsInstance(t *testing.T) {
	for _, code := range []string{"TagLimitExceeded", "InvalidInstanceID.NotFound"} {
		all := instances(50)
		calls, failed := tagging(t, all[31], http.StatusBadRequest, code, all)
		err := failed[all[31]]
		if len(failed) != 1 || fault.KindOf(err) != fault.Refuse || !strings.Contains(fmt.Sprint(err), all[31]) {
			t.Errorf("%s: want one error, of kind refuse, that names the instance, got %v", code, failed)
		}
		if len(calls) > 13 {
			t.Errorf("%s: want it found by halving, got %d calls", code, len(calls))
		}
	}
}

func TestTag_RetriesTransientFaultsOnly(t *testing.T) {
	for _, row := range []struct {
		status int
		code   string
		want   fault.Kind
	}{
		{400, "UnauthorizedOperation", fault.Refuse}, {400, "SomethingNew", fault.Refuse}, {400, "RequestLimitExceeded", fault.Retry}, {503, "Unavailable", fault.Retry}, {500, "InternalError", fault.Retry},
	} {
		all := instances(3)
		calls, failed := tagging(t, all[0], row.status, row.code, all)
		if len(calls) != 1 || len(failed) != 3 {
			t.Errorf("%s: want one call and three errors, got %v, %v", row.code, calls, failed)
		}
		for _, err := range failed {
			if fault.KindOf(err) != row.want {
				t.Errorf("%s: got kind %s, want %s: %v", row.code, fault.KindOf(err), row.want, err)
			}
		}
	}
}
