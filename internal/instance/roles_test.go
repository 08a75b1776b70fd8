package instance

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

const workerProfile = "arn:aws:iam::123456789012:instance-profile/worker"

// profileHolding returns the roles of a fake IAM in which each instance profile holds the role that role points to, and the
// number of calls to it.
func profileHolding(t *testing.T, role *string) (r *roles, calls *int) {
	t.Helper()
	return profileFailing(t, role, new(string), new(sync.Mutex))
}

// profileFailing is profileHolding for an IAM that fails with the code that code points to, unless it is empty. The code "cut" cuts
// the connection, after which its handler may still run: mu guards what the pointers point to.
func profileFailing(t *testing.T, role, code *string, mu *sync.Mutex) (r *roles, calls *int) {
	t.Helper()
	calls = new(int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		*calls++
		status, fails := map[string]int{"ServiceFailure": 500, "Throttling": 400, "NoSuchEntity": 404, "AccessDenied": 403}[*code]
		switch {
		case *code == "cut":
			panic(http.ErrAbortHandler)
		case fails:
			w.WriteHeader(status)
			fmt.Fprintf(w, `<ErrorResponse><Error><Code>%s</Code><Message>no</Message></Error></ErrorResponse>`, *code)
			return
		}
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
	return newRoles(c, nil), calls
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
		if got, err := l.RoleNow(t.Context(), f); err != nil || got.IAMRoleARN != second || *calls != 2 {
			t.Fatalf("want %q after two calls to IAM, got %q, %v after %d: else a first grant could rest on a swapped role", second, got.IAMRoleARN, err, *calls)
		}
	}
}

// TestRole_IsRememberedWhileIAMIsAway asks long after IAM named the role.
func TestRole_IsRememberedWhileIAMIsAway(t *testing.T) {
	const known = "arn:aws:iam::123456789012:role/worker"
	for name, row := range map[string]struct {
		code  string
		after time.Duration
		want  bool
	}{
		"IAM fails":                     {"ServiceFailure", time.Hour, true},
		"IAM throttles":                 {"Throttling", time.Hour, true},
		"IAM is not reached":            {"cut", time.Hour, true},
		"for too long":                  {"ServiceFailure", outageTTL, false},
		"the instance profile is gone":  {"NoSuchEntity", time.Hour, false},
		"the permission was taken away": {"AccessDenied", time.Hour, false},
	} {
		holds, code := known, ""
		var mu sync.Mutex
		r, calls := profileFailing(t, &holds, &code, &mu)
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			return *calls
		}
		answer := func(role, with string) {
			mu.Lock()
			defer mu.Unlock()
			holds, code = role, with
		}
		now := time.Now().Round(0)
		r.now = func() time.Time { return now }
		if _, err := r.get(t.Context(), "123456789012", workerProfile, time.Time{}); err != nil {
			t.Fatal(err)
		}
		answer(known, row.code)
		now = now.Add(row.after)
		asked := count()
		got, err := r.get(t.Context(), "123456789012", workerProfile, now)
		if served := err == nil && got.arn == known && got.unconfirmed; served != row.want || (!row.want && err == nil) || count() == asked {
			t.Errorf("%s: want IAM asked, and the known role returned as unconfirmed: %v, got %+v, %v", name, row.want, got, err)
		}
		asked = count()
		if _, _ = r.get(t.Context(), "123456789012", workerProfile, now); row.want && count() > asked {
			t.Errorf("%s: want one call for all instances of a batch, got %d more: each would wait for its timeout", name, count()-asked)
		}
		if row.code == "NoSuchEntity" {
			answer(known, "ServiceFailure")
			if got, err := r.get(t.Context(), "123456789012", workerProfile, time.Time{}); err == nil {
				t.Errorf("%s, and then IAM fails: want an error, got %+v: a definite answer ends what was known", name, got)
			}
		}
		const other = "arn:aws:iam::123456789012:role/other"
		answer(other, "")
		now = now.Add(time.Second)
		if got, err := r.get(t.Context(), "123456789012", workerProfile, now); err != nil || got.arn != other || got.unconfirmed {
			t.Errorf("%s, and then IAM answers: want the role that it names, got %+v, %v", name, got, err)
		}
	}
}

// TestRoleError_OfALostInstanceProfileIsFinal starts from a running instance that is an hour old.
func TestRoleError_OfALostInstanceProfileIsFinal(t *testing.T) {
	const here, id = "123456789012", "i-0123456789abcdef0"
	for name, row := range map[string]struct {
		code, profile string
		age           time.Duration
		want          fault.Kind
	}{
		"the instance profile is gone":           {"NoSuchEntity", workerProfile, time.Hour, fault.Refuse},
		"the instance just started":              {"NoSuchEntity", workerProfile, newProfile - time.Second, fault.Retry},
		"IAM denies, which a person corrects":    {"AccessDenied", workerProfile, time.Hour, fault.Retry},
		"IAM fails":                              {"ServiceFailure", workerProfile, time.Hour, fault.Retry},
		"an instance profile of another account": {"", "arn:aws:iam::444455556666:instance-profile/worker", time.Hour, fault.Refuse},
		"an ARN that is not one":                 {"", "worker", time.Hour, fault.Refuse},
		"an ARN of a role":                       {"", "arn:aws:iam::123456789012:role/worker", time.Hour, fault.Refuse},
	} {
		role := "arn:aws:iam::123456789012:role/worker"
		r, _ := profileFailing(t, &role, &row.code, new(sync.Mutex))
		now := time.Now().Round(0)
		l := &Lookup{roles: r, needsRole: func(facts.Instance) bool { return true }, now: func() time.Time { return now }}
		f := facts.Instance{ID: id, Account: here, State: facts.Running, IAMInstanceProfileARN: row.profile, LaunchTime: now.Add(-row.age), ObservedAt: now}
		seen := map[string]Sighting{id: {Found: true, Facts: f}}
		l.addRoles(t.Context(), here, seen)
		_, err := l.RoleNow(t.Context(), f)
		for _, err := range []error{seen[id].Err, err} {
			if err == nil || fault.KindOf(err) != row.want || !strings.Contains(err.Error(), id) {
				t.Errorf("%s: want an error of kind %s that names the instance, got %v", name, row.want, err)
			}
		}
		if !seen[id].LacksRole() {
			t.Errorf("%s: want only the role unknown, got %+v", name, seen[id])
		}
	}
}
