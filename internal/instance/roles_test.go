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

// profileHolding gives the roles of an IAM in which an instance profile holds what role points to, and counts what IAM
// is asked.
func profileHolding(t *testing.T, role *string) (of *roles, asked *int) {
	t.Helper()
	asked = new(int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		*asked++
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
	return newRoles(c), asked
}

// TestAnInstanceProfileWithoutARoleIsAskedAboutAnew has a role swapped, by taking one out and putting another in: for
// that moment the profile is empty. An answer kept from it would have both looks of a removal say that no profile fits.
func TestAnInstanceProfileWithoutARoleIsAskedAboutAnew(t *testing.T) {
	const first, second = "arn:aws:iam::123456789012:role/first", "arn:aws:iam::123456789012:role/second"
	holds := ""
	r, asked := profileHolding(t, &holds)
	now := time.Now()
	r.now = func() time.Time { return now }
	for _, step := range []struct {
		why   string
		holds string
		after time.Duration
		want  string
		asks  int
	}{
		{"the profile is empty", "", 0, "", 1},
		{"it is still empty, which was not kept", "", 0, "", 2},
		{"a role was put in a moment later", first, 0, first, 3},
		{"the role is known", second, rolesKept - time.Second, first, 3},
		{"the role is not taken as known any longer", "", time.Second, "", 4},
		{"the next was put in", second, 0, second, 5},
	} {
		holds, now = step.holds, now.Add(step.after)
		got, err := r.of(t.Context(), "123456789012", workerProfile, time.Time{})
		if err != nil || got.arn != step.want || *asked != step.asks {
			t.Fatalf("%s: want %q after IAM was asked %d times, got %q, %v after %d: an empty answer that is kept takes grants from running instances", step.why, step.want, step.asks, got.arn, err, *asked)
		}
	}
}

func TestRoleNow_IsAskedAfterTheInstanceWasObserved(t *testing.T) {
	const first, second = "arn:aws:iam::123456789012:role/master", "arn:aws:iam::123456789012:role/worker"
	holds := first
	r, asked := profileHolding(t, &holds)
	now := time.Now().Round(0)
	r.now = func() time.Time { return now }
	if _, err := r.of(t.Context(), "123456789012", workerProfile, time.Time{}); err != nil {
		t.Fatal(err)
	}
	holds, now = second, now.Add(time.Minute)
	l := &Lookup{roles: r}
	f := facts.Instance{ID: "i-0123456789abcdef0", Account: "123456789012", IAMInstanceProfileARN: workerProfile, ObservedAt: now}
	for range 2 { // the second time by the first one's answer
		if got, err := l.RoleNow(t.Context(), f); err != nil || got != second || *asked != 2 {
			t.Fatalf("want %q after IAM was asked twice, got %q, %v after %d: a role that was swapped would give a first grant", second, got, err, *asked)
		}
	}
}
