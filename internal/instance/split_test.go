package instance_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"golang.org/x/time/rate"

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
func (z *zones) lookup() (*instance.Lookup, facts.Place) {
	return lookupOf(z), facts.Place{Account: account, Region: "us-east-1"}
}

// lookupOf returns a Lookup of a fake AWS.
func lookupOf(h http.Handler) *instance.Lookup {
	return instance.New(instance.Options{Config: aws.Config{
		Region: "us-east-1", HTTPClient: inMemory{h}, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
	}})
}

// refsOf returns the instances of the account in which the fake shows them.
func refsOf(ids []string) []facts.Ref {
	refs := make([]facts.Ref, len(ids))
	for n, id := range ids {
		refs[n] = facts.Ref{ID: id, Place: facts.Place{Account: account, Region: "us-east-1"}}
	}
	return refs
}

func (z *zones) describe(t *testing.T, ids []string) map[string]instance.Sighting {
	t.Helper()
	out := map[string]instance.Sighting{}
	for ref, s := range lookupOf(z).Describe(t.Context(), refsOf(ids)) {
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

// TestZoneOutage_CallsAreBounded has a whole region out of service: no instance is described, and EC2 is soon asked no more.
func TestZoneOutage_CallsAreBounded(t *testing.T) {
	all := instances(400)
	z := &zones{exists: all, down: all, status: http.StatusInternalServerError, code: "InternalError"}
	for id, s := range z.describe(t, all) {
		if s.Err == nil {
			t.Fatalf("want every instance unknown, got %s: %+v", id, s)
		}
	}
	if z.calls > 65 {
		t.Errorf("want at most 65 calls by IDs, got %d: EC2 throttles an account that asks more", z.calls)
	}
	l, place := z.lookup()
	err := l.List(t.Context(), place, all, func(page []instance.Sighting) error {
		if len(page) > 0 {
			t.Errorf("want nothing listed, got %d", len(page))
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "InternalError") {
		t.Errorf("want the outage as the error of the list, got %v: the place was not listed", err)
	}
}

// inMemory answers the SDK's requests without a connection, so that the pauses between calls pass in a test's own time.
type inMemory struct{ http.Handler }

func (m inMemory) Do(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	m.ServeHTTP(answer, r)
	return answer.Result(), nil
}

// throttled is EC2's limit: 100 calls at once, and 20 in each further second. Each call takes 100 ms.
func (z *zones) throttled() http.Handler {
	limit := rate.NewLimiter(20, 100)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		if !limit.Allow() {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>`)
			return
		}
		z.ServeHTTP(w, r)
	})
}

// partlyDown returns EC2 with n instances, of which a random share is in the zone, and their IDs.
func partlyDown(n int, share float64, seed uint64) (z *zones, all []string) {
	random := rand.New(rand.NewPCG(seed, seed))
	all = instances(n)
	z = &zones{exists: all, status: http.StatusInternalServerError, code: "InternalError"}
	for _, id := range all {
		if random.Float64() < share {
			z.down = append(z.down, id)
		}
	}
	return z, all
}

// TestZoneOutage_FullBatchTakesOneTry describes a full batch of the queue, of which up to all but a few are in the zone.
func TestZoneOutage_FullBatchTakesOneTry(t *testing.T) {
	for _, share := range []float64{0.02, 0.1, 1.0 / 3, 0.5, 0.9} {
		for seed := range uint64(20) {
			synctest.Test(t, func(t *testing.T) {
				z, all := partlyDown(50, share, seed)
				began := time.Now()
				for ref, s := range lookupOf(z.throttled()).Describe(t.Context(), refsOf(all)) {
					if s.Found == slices.Contains(z.down, ref.ID) {
						t.Errorf("share %.2f, seed %d: want every instance of a healthy zone described, got %s: %v", share, seed, ref.ID, s.Err)
					}
				}
				if z.calls > 65 || time.Since(began) > 5*time.Second {
					t.Errorf("share %.2f, seed %d: want at most 65 calls in 5 s, got %d in %s", share, seed, z.calls, time.Since(began))
				}
			})
		}
	}
}

// TestZoneOutage_LongListTakesOneTry names a thousand instances: EC2 throttles none of the calls.
func TestZoneOutage_LongListTakesOneTry(t *testing.T) {
	for _, share := range []float64{1.0 / 3, 0.5} {
		synctest.Test(t, func(t *testing.T) {
			z, all := partlyDown(1000, share, 1)
			began, found := time.Now(), 0
			err := lookupOf(z.throttled()).List(t.Context(), refsOf(all)[0].Place, all, func(page []instance.Sighting) error {
				for _, s := range page {
					if s.Found {
						found++
					}
				}
				return nil
			})
			if want := len(all) - len(z.down); err != nil || found != want {
				t.Errorf("share %.2f: want all %d of the healthy zones, got %d, %v", share, want, found, err)
			}
			if took := time.Since(began); took > 130*time.Second {
				t.Errorf("share %.2f: want about two minutes, got %s", share, took)
			}
		})
	}
}

// TestZoneOutage_ThrottlingEndsTheSplit has others use up EC2's limit: the described instances stay described, the rest is unknown.
func TestZoneOutage_ThrottlingEndsTheSplit(t *testing.T) {
	all := instances(50)
	z := &zones{exists: all, down: all[:25], status: http.StatusInternalServerError, code: "InternalError"}
	calls, refused := 0, 0
	var mu sync.Mutex
	l := lookupOf(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		mu.Lock()
		isRefused := false
		if r.Form.Get("InstanceId.1") != "" {
			calls++
			isRefused = calls > 40
		}
		if isRefused {
			refused++
		}
		mu.Unlock()
		if isRefused {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>`)
			return
		}
		z.ServeHTTP(w, r)
	}))
	found := 0
	for ref, s := range l.Describe(t.Context(), refsOf(all)) {
		switch {
		case s.Found:
			found++
		case s.Err == nil || fault.KindOf(s.Err) != fault.Retry:
			t.Errorf("want %s unknown and tried again, got %+v", ref.ID, s)
		}
	}
	if found == 0 || refused == 0 || refused > 8 {
		t.Errorf("want some instances found and at most the eight calls under way throttled, got %d found and %d calls throttled", found, refused)
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
	l, place := z.lookup()
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
