package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const deployTable = "deploy template.yaml again, which says how the table must be, and set TABLE_NAME to its output TableName"

func (d Doctor) tableSteps() []*step {
	table := &step{name: "ledger table", look: d.tableShape}
	return []*step{
		table,
		{name: "ledger recovery", needs: []*step{table}, look: d.tableRecovery},
		{name: "ledger expiry", needs: []*step{table}, look: d.tableExpiry},
		{name: "ledger open", needs: []*step{table}, look: d.open},
	}
}

func (d Doctor) tableShape(ctx context.Context) finding {
	s, err := d.Table.Shape(ctx)
	switch {
	case err != nil:
		return unseen(err, "dynamodb:DescribeTable")
	case s.Status != "ACTIVE" && s.Status != "UPDATING": // it serves in both
		return bad("wait until the table is active; "+deployTable, "the table's status is %q", s.Status)
	case s.Keys != ledger.Keys:
		return bad(deployTable, "the table's key is %q and not %q: it is not this program's", s.Keys, ledger.Keys)
	}
	return good("the table is %s, its key is %s", s.Status, s.Keys)
}

func (d Doctor) tableRecovery(ctx context.Context) finding {
	on, err := d.Table.Recovery(ctx)
	switch {
	case err != nil:
		return unseen(err, "dynamodb:DescribeContinuousBackups")
	case !on:
		return bad("turn it on: aws dynamodb update-continuous-backups, or deploy template.yaml again",
			"point-in-time recovery is off: a table that is lost is the knowledge of who owns what")
	}
	return good("point-in-time recovery is on")
}

func (d Doctor) tableExpiry(ctx context.Context) finding {
	attribute, err := d.Table.Expiry(ctx)
	switch {
	case err != nil:
		return unseen(err, "dynamodb:DescribeTimeToLive")
	case attribute != ledger.ExpiresAt:
		return bad("turn it on for "+ledger.ExpiresAt+": aws dynamodb update-time-to-live, or deploy template.yaml again",
			"items expire by %q and not by %q: the records of removed instances pile up", attribute, ledger.ExpiresAt)
	}
	return good("items expire by %s", attribute)
}

// open looks for the item that a teardown leaves, also one that removed nothing.
func (d Doctor) open(ctx context.Context) finding {
	since, err := d.Ledger.TornDown(ctx)
	switch {
	case err != nil:
		return unseen(err, "dynamodb:GetItem")
	case since != nil:
		return bad("delete the item teardown from the ledger's table to take the deployment up again, or delete its stack",
			"this deployment was torn down at %s: no instance is granted anything", since.UTC().Format(time.RFC3339))
	}
	return good("the deployment is not torn down: grants are made")
}

// unseen is for a setting that could not be looked at. Where the endpoint is not AWS and does not know the call, nothing
// is known to be wrong.
func unseen(err error, action string) finding {
	if errors.Is(err, ledger.ErrUnsupported) {
		return good("not looked at: %v", err)
	}
	remedy := fmt.Sprintf("see that the function reaches DynamoDB; %s", deployTable)
	if refused(err) {
		remedy = fmt.Sprintf("allow %s on the table to the function's role, as template.yaml does", action)
	}
	return bad(remedy, "%v", err)
}
