package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

var ireland = facts.Place{Account: here.Account, Region: "eu-west-1"}

// regionDown is EC2 in memory, and the real look-up for the region of lookup, in which EC2 fails every call.
type regionDown struct {
	instancetest.EC2
	lookup *instance.Lookup
}

func (e regionDown) List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	if p == ireland {
		return e.lookup.List(ctx, p, ids, each)
	}
	return e.EC2.List(ctx, p, ids, each)
}

// downInIreland has EC2 fail every call in a region.
func (w *world) downInIreland() func(*Options) {
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if r.Form.Get("Action") == "GetCallerIdentity" {
			fmt.Fprintf(rw, `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:sts::%[1]s:assumed-role/r/s</Arn><Account>%[1]s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`, here.Account)
			return
		}
		rw.WriteHeader(http.StatusInternalServerError)
	}))
	w.t.Cleanup(server.Close)
	lookup := instance.New(instance.Options{Config: aws.Config{
		Region: here.Region, BaseEndpoint: &server.URL, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
	}})
	return func(o *Options) { o.Instances = regionDown{w.instances(), lookup} }
}

// TestRegionOutage_StopsNoOtherRegion names instances of a healthy region, while another compared region fails every call.
func TestRegionOutage_StopsNoOtherRegion(t *testing.T) {
	w := newWorld(t, 2)
	theirs := worker(9)
	theirs.Region = ireland.Region
	w.provision(theirs)
	delete(w.ec2, id(0))
	delete(w.Objects, slices.Sorted(slices.Values(w.under(id(1))))[0])
	in := Input{Mode: Correct, Force: true, InstanceIDs: []string{id(0), id(1), theirs.ID}}
	a := w.reconcile(in, w.downInIreland(), inRegions(here.Region, ireland.Region))
	w.wantRemoved(id(0), "of the healthy region", a)
	if err := w.granted(id(1)); err != nil || a.Summary.Failed > 0 {
		t.Errorf("want the instance of the healthy region repaired and no failed row: %v\n%s", err, answerText(a))
	}
	isTrouble := func(p PlaceTrouble) bool { return p.Region == ireland.Region && p.Recorded == 1 && p.Withholds }
	if w.Records[theirs.ID].State != ledger.Active || !slices.ContainsFunc(a.Places, isTrouble) {
		t.Errorf("want the instance of the failed region kept and the region named\n%s", answerText(a))
	}
}

// partly is EC2 that in a region describes no named instance of unknown, but answers about others.
type partly struct {
	instancetest.EC2
	unknown []string
	// first has the region answer before the others, or after them.
	first bool
	done  chan struct{} // closed by the listing that comes first
}

var errZone = errors.New("its Availability Zone may be out of service")

func (e partly) List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	isFirst := (p == ireland) == e.first
	if isFirst {
		defer close(e.done)
	} else {
		<-e.done
	}
	if err := e.EC2.List(ctx, p, ids, each); err != nil || p != ireland {
		return err
	}
	var page []instance.Sighting
	for _, id := range e.unknown {
		page = append(page, instance.Sighting{Facts: facts.Instance{ID: id}, Err: errZone})
	}
	return each(page)
}

// TestUnknownInstance_IsJudgedByItsOwnPlace has a region that describes some of the named instances, and not whether others are there.
func TestUnknownInstance_IsJudgedByItsOwnPlace(t *testing.T) {
	for _, first := range []bool{true, false} {
		w := newWorld(t, 2)
		theirs, unrecorded := worker(9), w.launch(worker(20))
		theirs.Region = ireland.Region
		w.provision(w.launch(theirs))
		delete(w.ec2, id(0))
		delete(w.ec2, theirs.ID)
		lost := worker(30) // in no record: it may be in either region
		w.makeObjects(lost, w.realm)
		all := []string{id(0), id(1), theirs.ID, unrecorded.ID, lost.ID}
		unsure := func(o *Options) {
			o.Instances = partly{EC2: w.instances(), unknown: all, first: first, done: make(chan struct{})}
		}
		a := w.reconcile(Input{Mode: Correct, Force: true, InstanceIDs: all}, unsure, inRegions(here.Region, ireland.Region))
		w.wantRemoved(id(0), "by the answer of the region in its record", a)
		if err := w.granted(unrecorded.ID); err != nil {
			t.Errorf("first %v: want the instance granted that one region shows: %v\n%s", first, err, answerText(a))
		}
		if w.Records[theirs.ID].State != ledger.Active || len(w.under(lost.ID)) == 0 {
			t.Errorf("first %v: want the instance of the region itself kept, and the one of no known place\n%s", first, answerText(a))
		}
		if a.Summary.Failed != 2 {
			t.Errorf("first %v: want one failed row for each of these two, got %d\n%s", first, a.Summary.Failed, answerText(a))
		}
	}
}
