package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const deployTable = "deploy template.yaml, which defines the table, and set TABLE_NAME to its output TableName"

func (d Doctor) tableSteps() []*step {
	table := &step{name: "ledger table", check: d.tableShape}
	return []*step{
		table,
		{name: "ledger recovery", needs: []*step{table}, check: d.tableRecovery},
		{name: "ledger expiry", needs: []*step{table}, check: d.tableExpiry},
		{name: "ledger open", needs: []*step{table}, check: d.teardown},
	}
}

func (d Doctor) tableShape(ctx context.Context) finding {
	s, err := d.Table.Shape(ctx)
	switch {
	case err != nil:
		return d.unreadable(err, "dynamodb:DescribeTable")
	case s.Status != "ACTIVE" && s.Status != "UPDATING": // it serves in both
		return bad("wait until the table is active; "+deployTable, "the table's status is %q", s.Status)
	case s.Keys != ledger.Keys:
		return bad(deployTable, "the table's key is %q and not %q: it is not a table of this program", s.Keys, ledger.Keys)
	}
	return good("the table is %s, its key is %s", s.Status, s.Keys)
}

func (d Doctor) tableRecovery(ctx context.Context) finding {
	on, err := d.Table.Recovery(ctx)
	switch {
	case err != nil:
		return d.unreadable(err, "dynamodb:DescribeContinuousBackups")
	case !on:
		return bad("enable it: aws dynamodb update-continuous-backups, or deploy template.yaml",
			"point-in-time recovery is off: if the table is lost, so is the record of each object's owner")
	}
	return good("point-in-time recovery is on")
}

func (d Doctor) tableExpiry(ctx context.Context) finding {
	attribute, err := d.Table.Expiry(ctx)
	switch {
	case err != nil:
		return d.unreadable(err, "dynamodb:DescribeTimeToLive")
	case attribute != ledger.ExpiresAt:
		return bad("enable it for "+ledger.ExpiresAt+": aws dynamodb update-time-to-live, or deploy template.yaml",
			"items expire by %q and not by %q: the tombstones of removed instances accumulate", attribute, ledger.ExpiresAt)
	}
	return good("items expire by %s", attribute)
}

// teardown looks for the item that every teardown leaves, even one that removed nothing.
func (d Doctor) teardown(ctx context.Context) finding {
	since, err := d.Ledger.TornDown(ctx)
	switch {
	case err != nil:
		return d.unreadable(err, "dynamodb:GetItem")
	case since != nil:
		return bad("delete the item teardown from the ledger's table to use the deployment again, or delete its stack",
			"this deployment was torn down at %s: no instance gets access", since.UTC().Format(time.RFC3339))
	}
	return good("the deployment is not torn down: grants are made")
}

// unreadable returns the finding for a setting that could not be read. It is OK if the endpoint is not AWS and does not know the
// call.
func (d Doctor) unreadable(err error, action string) finding {
	if errors.Is(err, ledger.ErrUnsupported) {
		return good("not checked: %v", err)
	}
	remedy := fmt.Sprintf("check that the function reaches DynamoDB; %s", deployTable)
	switch {
	case isUnreached(err):
		remedy = d.routeTo("dynamodb", d.Region)
	case isDenied(err):
		remedy = fmt.Sprintf("allow %s on the table to the function's role, as template.yaml does", action)
	}
	return bad(remedy, "%v", err)
}
