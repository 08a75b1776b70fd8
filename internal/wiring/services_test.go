package wiring_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
)

// TestServices_AreReachedWithoutACall has an endpoint that refuses everything: an answer shows that the service is reached.
func TestServices_AreReachedWithoutACall(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.URL.Path+r.Header.Get("Authorization")+r.Header.Get("X-Amz-Target"))
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer server.Close()
	for name, value := range map[string]string{"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": server.URL, "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1"} {
		t.Setenv(name, value) // the SDK reads the process's own environment
	}
	const secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ca-AbCdEf"
	env := map[string]string{"TABLE_NAME": "ledger", "DEPLOYMENT_ID": "d", "VAULT_ADDR": "https://vault:8200", "EVENT_BUS_NAME": "audit", "CONVERGE_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/q", "VAULT_CA_SECRET_ARN": secret}
	h := reconcileHandler(t, env)
	d, _ := h.Doctor.(doctor.Doctor)
	var names []string
	for _, s := range d.Services {
		names = append(names, s.Name+" "+s.Region)
		if isHooks := s.Name == "autoscaling"; s.Optional != isHooks {
			t.Errorf("%s: got optional: %v, want only the service of lifecycle hooks optional: the settings say that the others are used", s.Name, s.Optional)
		}
		err := s.Reach(t.Context())
		if isClosed := s.Name == "sqs"; isClosed != (err != nil) || (isClosed && !strings.Contains(err.Error(), "refused")) {
			t.Errorf("%s: want an error only where no endpoint answers, got %v", s.Name, err)
		}
	}
	if want := []string{"autoscaling us-east-1", "sqs us-east-1", "events us-east-1", "secretsmanager eu-west-1"}; !slices.Equal(names, want) {
		t.Errorf("the services of these settings: got %q, want %q", names, want)
	}
	for _, call := range seen {
		if call != "GET /" {
			t.Errorf("got the request %q: the doctor sends no call of the functions, least of all a message", call)
		}
	}
}
