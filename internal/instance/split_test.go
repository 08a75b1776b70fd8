package instance_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// zones is a fake EC2 with an Availability Zone out of service. moto has no such zone.
type zones struct {
	exists []string
	// down are the instances in the zone. A call that names one fails, and so does a call that names no instance.
	down   []string
	status int
	code   string
	// hidden are instances that EC2 leaves out of its answer without an error.
	hidden []string

	mu    sync.Mutex
	calls int // that name instances
}

func (z *zones) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	if r.Form.Get("Action") != "DescribeInstances" {
		fmt.Fprint(w, awsAnswers()[r.Form.Get("Action")])
		return
	}
	var named, absent []string
	for n := 1; r.Form.Get(fmt.Sprint("InstanceId.", n)) != ""; n++ {
		named = append(named, r.Form.Get(fmt.Sprint("InstanceId.", n)))
	}
	isDown := len(named) == 0
	for _, id := range named {
		isDown = isDown || slices.Contains(z.down, id)
		if !slices.Contains(z.exists, id) {
			absent = append(absent, id)
		}
	}
	fail := func(status int, code, text string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors></Response>`, code, text)
	}
	if len(named) > 0 {
		z.mu.Lock()
		z.calls++
		z.mu.Unlock()
	}
	switch {
	case isDown:
		fail(z.status, z.code, "no")
		return
	case len(absent) > 0:
		fail(http.StatusBadRequest, "InvalidInstanceID.NotFound", "The instance IDs '"+strings.Join(absent, ", ")+"' do not exist")
		return
	}
	var items strings.Builder
	for _, id := range named {
		if !slices.Contains(z.hidden, id) {
			fmt.Fprintf(&items, `<item><instanceId>%s</instanceId><instanceState><name>running</name></instanceState></item>`, id)
		}
	}
	fmt.Fprintf(w, `<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><reservationSet><item><ownerId>%s</ownerId><instancesSet>%s</instancesSet></item></reservationSet></DescribeInstancesResponse>`, account, items.String())
}

// lookup returns a Lookup of the fake, and the place to ask for.
func (z *zones) lookup(t *testing.T) (*instance.Lookup, facts.Place) {
	t.Helper()
	server := httptest.NewServer(z)
	t.Cleanup(server.Close)
	return instance.New(instance.Options{Config: aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
	}}), facts.Place{Account: account, Region: "us-east-1"}
}

func (z *zones) describe(t *testing.T, ids []string) map[string]instance.Sighting {
	t.Helper()
	l, place := z.lookup(t)
	refs := make([]facts.Ref, len(ids))
	for n, id := range ids {
		refs[n] = facts.Ref{ID: id, Place: place}
	}
	out := map[string]instance.Sighting{}
	for ref, s := range l.Describe(t.Context(), refs) {
		out[ref.ID] = s
	}
	return out
}

// TestZoneOutage_StopsItsOwnInstancesOnly holds the rule of the EC2 API: a call without instance IDs fails as a whole.
func TestZoneOutage_StopsItsOwnInstancesOnly(t *testing.T) {
	for _, code := range []string{"InternalError", "Unavailable"} {
		all := instances(33)
		gone := all[32]
		z := &zones{exists: all[:32], down: []string{all[3], all[17], all[18]}, status: http.StatusInternalServerError, code: code}
		seen := z.describe(t, all)
		for _, id := range all {
			s := seen[id]
			switch {
			case id == gone && (s.Err != nil || s.Found):
				t.Errorf("%s: want %s absent, since EC2 says that it does not exist, got %+v", code, id, s)
			case slices.Contains(z.down, id) && (s.Err == nil || s.Found || fault.KindOf(s.Err) != fault.Retry || !strings.Contains(s.Err.Error(), id)):
				t.Errorf("%s: want an error of kind retry that names %s, got %+v: nothing is known of it, and it must not count as gone", code, id, s)
			case id != gone && !slices.Contains(z.down, id) && (s.Err != nil || !s.Found):
				t.Errorf("%s: want %s of a healthy zone found, got %+v", code, id, s)
			}
		}
	}
}

func TestZoneOutage_CallsAreBounded(t *testing.T) {
	all := instances(400)
	z := &zones{exists: all, down: all, status: http.StatusInternalServerError, code: "InternalError"}
	for id, s := range z.describe(t, all) {
		if s.Err == nil {
			t.Fatalf("want every instance unknown, got %s: %+v", id, s)
		}
	}
	if z.calls > 60 {
		t.Errorf("want at most 60 calls by IDs, got %d: EC2 throttles an account that asks more", z.calls)
	}
}

func TestZoneOutage_OtherFailuresAreNotSplit(t *testing.T) {
	for code, status := range map[string]int{"RequestLimitExceeded": 503, "UnauthorizedOperation": 403, "SomethingNew": 400} {
		z := &zones{exists: instances(4), status: status, code: code}
		for id, s := range z.describe(t, instances(4)) {
			if s.Err == nil || !strings.Contains(s.Err.Error(), code) {
				t.Errorf("%s: want the error of the one call for %s, got %+v", code, id, s)
			}
		}
		if z.calls > 0 {
			t.Errorf("%s: want no further call, got %d: throttling and denials concern the whole account", code, z.calls)
		}
	}
}

func TestZoneOutage_SilenceIsNoAbsence(t *testing.T) {
	all := instances(2)
	z := &zones{exists: all, hidden: all[1:], status: http.StatusInternalServerError, code: "InternalError"}
	if seen := z.describe(t, all); seen[all[1]].Err == nil || !seen[all[0]].Found {
		t.Errorf("want one found and one unknown, got %+v: only InvalidInstanceID.NotFound says that an instance does not exist", seen)
	}
}

func TestZoneOutage_ListByIDsReportsTheUnknown(t *testing.T) {
	all := instances(8)
	z := &zones{exists: all[:7], down: all[:1], status: http.StatusInternalServerError, code: "Unavailable"}
	l, place := z.lookup(t)
	var found, unknown []string
	err := l.List(t.Context(), place, all, func(page []instance.Sighting) error {
		for _, s := range page {
			if s.Err != nil {
				unknown = append(unknown, s.Facts.ID)
			} else {
				found = append(found, s.Facts.ID)
			}
		}
		return nil
	})
	slices.Sort(found)
	if err != nil || !slices.Equal(unknown, all[:1]) || !slices.Equal(found, all[1:7]) {
		t.Errorf("want six found, the instance of the zone unknown and the last absent, got %v, %v, %v", found, unknown, err)
	}
	if err := l.List(t.Context(), place, nil, func([]instance.Sighting) error { return nil }); err == nil {
		t.Error("want the list of all instances to fail: a part of it would make the others count as gone")
	}
}
