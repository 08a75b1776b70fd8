package instance

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

const workerProfile = "arn:aws:iam::123456789012:instance-profile/worker"

// profileHolding returns the roles of a fake IAM in which each instance profile holds the role that role points to, and the
// number of calls to it.
func profileHolding(t *testing.T, role *string) (r *roles, calls *int) {
	t.Helper()
	calls = new(int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		*calls++
		member := ""
		if *role != "" {
			member = "<member><Arn>" + *role + "</Arn></member>"
		}
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<GetInstanceProfileResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetInstanceProfileResult><InstanceProfile><Roles>%s</Roles></InstanceProfile></GetInstanceProfileResult></GetInstanceProfileResponse>`, member)
	}))
	t.Cleanup(server.Close)
	c := newClients(Options{Config: aws.Config{Region: "us-east-1", BaseEndpoint: &server.URL, RetryMaxAttempts: 1, Credentials: aws.AnonymousCredentials{}}})
	c.own = arn.ARN{Partition: "aws", AccountID: "123456789012"}
	return newRoles(c), calls
}

// TestInstanceProfile_WithoutRoleIsNotCached swaps a role, by removing one and adding another: for a moment the instance
// profile is empty. If that answer were cached, both looks of a removal would find no matching profile.
func TestInstanceProfile_WithoutRoleIsNotCached(t *testing.T) {
	const first, second = "arn:aws:iam::123456789012:role/first", "arn:aws:iam::123456789012:role/second"
	holds := ""
	r, calls := profileHolding(t, &holds)
	now := time.Now()
	r.now = func() time.Time { return now }
	for _, step := range []struct {
		why   string
		holds string
		after time.Duration
		want  string
		calls int
	}{
		{"the profile is empty", "", 0, "", 1},
		{"it is still empty, which was not cached", "", 0, "", 2},
		{"a role is added a moment later", first, 0, first, 3},
		{"the role is cached", second, rolesTTL - time.Second, first, 3},
		{"the cache has expired", "", time.Second, "", 4},
		{"the next role is added", second, 0, second, 5},
	} {
		holds, now = step.holds, now.Add(step.after)
		got, err := r.get(t.Context(), "123456789012", workerProfile, time.Time{})
		if err != nil || got.arn != step.want || *calls != step.calls {
			t.Fatalf("%s: want %q after %d calls to IAM, got %q, %v after %d: a cached empty answer would remove grants of running instances", step.why, step.want, step.calls, got.arn, err, *calls)
		}
	}
}

func TestRoleNow_IsAskedAfterTheSighting(t *testing.T) {
	const first, second = "arn:aws:iam::123456789012:role/master", "arn:aws:iam::123456789012:role/worker"
	holds := first
	r, calls := profileHolding(t, &holds)
	now := time.Now().Round(0)
	r.now = func() time.Time { return now }
	if _, err := r.get(t.Context(), "123456789012", workerProfile, time.Time{}); err != nil {
		t.Fatal(err)
	}
	holds, now = second, now.Add(time.Minute)
	l := &Lookup{roles: r, needsRole: func(facts.Instance) bool { return true }}
	f := facts.Instance{ID: "i-0123456789abcdef0", Account: "123456789012", IAMInstanceProfileARN: workerProfile, ObservedAt: now}
	for range 2 { // the second time from the cache
		if got, err := l.RoleNow(t.Context(), f); err != nil || got != second || *calls != 2 {
			t.Fatalf("want %q after two calls to IAM, got %q, %v after %d: else a first grant could rest on a swapped role", second, got, err, *calls)
		}
	}
}
