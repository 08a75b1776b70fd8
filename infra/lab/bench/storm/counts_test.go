package storm

import (
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// errorsOf returns the counts that are outside their bounds.
func errorsOf(d design, c counted) string {
	var off []string
	for _, count := range d.beside(c, "", 100, 2) {
		if err := count.Err(); err != nil {
			off = append(off, count.What)
		}
	}
	return strings.Join(off, ", ")
}

func TestDesign_BoundsCallsOfInstancesBatchesAndSandboxes(t *testing.T) {
	d := design{each: calls{reads: 1, writes: 4}, batch: calls{lists: 4, batchReads: 1}, sandbox: calls{ledgerReads: 3}}
	least := counted{calls: calls{reads: 100, writes: 400}, describes: 2, batches: 2}
	most := least
	most.lists, most.batchReads, most.ledgerReads = 8, 2, 6
	for _, c := range []counted{least, most} {
		if off := errorsOf(d, c); off != "" {
			t.Errorf("%+v is as designed, and is off by %s", c, off)
		}
	}
	for _, change := range []func(*counted){
		func(c *counted) { c.reads++ },
		func(c *counted) { c.reads-- },
		func(c *counted) { c.writes++ },
		func(c *counted) { c.lists = 9 },
		func(c *counted) { c.batchReads = 3 },
		func(c *counted) { c.ledgerReads = 7 },
		func(c *counted) { c.puts = 1 },
		func(c *counted) { c.describes = 3 },
		func(c *counted) { c.troubles = 1 },
	} {
		c := least
		change(&c)
		if errorsOf(d, c) == "" {
			t.Errorf("%+v is within the bounds of %+v, want an error", c, d)
		}
	}
}

// A call that no design names is a mistake of the function or of the design.
func TestCounted_FailsForAnUnknownCall(t *testing.T) {
	var c counted
	for _, call := range []tap.Call{
		{Service: dynamoService, Action: "BatchGetItem", Status: 200},
		{Service: vaultService, Method: "GET", Action: "LIST sys/policies/acl", Status: 200},
		{Service: vaultService, Method: "GET", Action: "GET auth/aws/role/i-1", Status: 404},
	} {
		if err := c.add(call); err != nil {
			t.Errorf("%s: %v", call.Action, err)
		}
	}
	if c.batchReads != 1 || c.lists != 1 || c.reads != 1 {
		t.Errorf("counted %+v, want one read of a batch, one list and one read", c.calls)
	}
	if err := c.add(tap.Call{Service: dynamoService, Action: "Scan", Status: 200}); err == nil || !strings.Contains(err.Error(), "Scan") {
		t.Errorf("a scan in a storm: %v, want an error that names it", err)
	}
}
