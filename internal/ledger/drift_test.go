package ledger_test

import (
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

func TestLeavesDrift_OnlyOfWhatIsGrantedAsBefore(t *testing.T) {
	object := grant.Object{Kind: grant.KindGeneric, Path: "alice_cluster/kv/i-0123456789abcdef0-seed", Fields: map[string]any{"name": "a"}}
	recorded := ledger.Object{Kind: object.Kind, Path: object.Path, SHA256: object.SHA256()}
	changed, carried := recorded, recorded
	changed.SHA256, carried.Left = "00", true
	for name, c := range map[string]struct {
		mode   grant.DriftMode
		record *ledger.Record
		want   bool
	}{
		"detect, as it was made":              {grant.DriftDetect, &ledger.Record{State: ledger.Active, Objects: []ledger.Object{recorded}}, true},
		"ignore, as it was made":              {grant.DriftIgnore, &ledger.Record{State: ledger.Active, Objects: []ledger.Object{recorded}}, true},
		"correct":                             {grant.DriftCorrect, &ledger.Record{State: ledger.Active, Objects: []ledger.Object{recorded}}, false},
		"no mode":                             {"", &ledger.Record{State: ledger.Active, Objects: []ledger.Object{recorded}}, false},
		"no record":                           {grant.DriftIgnore, nil, false},
		"not recorded":                        {grant.DriftIgnore, &ledger.Record{State: ledger.Active}, false},
		"another grant":                       {grant.DriftIgnore, &ledger.Record{State: ledger.Active, Objects: []ledger.Object{changed}}, false},
		"an intent whose run was to write it": {grant.DriftIgnore, &ledger.Record{State: ledger.Provisioning, Objects: []ledger.Object{recorded}}, false},
		"an intent whose run was to leave it": {grant.DriftIgnore, &ledger.Record{State: ledger.Provisioning, Objects: []ledger.Object{carried}}, true},
		"a removal that broke off":            {grant.DriftIgnore, &ledger.Record{State: ledger.Deprovisioning, Objects: []ledger.Object{carried}}, false},
		"a tombstone":                         {grant.DriftIgnore, &ledger.Record{State: ledger.Deleted, Objects: []ledger.Object{carried}}, false},
	} {
		g := &grant.Grant{Profile: &grant.Profile{Reconcile: grant.Modes{Generic: c.mode}}}
		if got := c.record.LeavesDrift(g, object); got != c.want {
			t.Errorf("%s: want %v, got %v", name, c.want, got)
		}
	}
}
