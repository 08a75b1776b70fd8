package ledger

import (
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// LeaseTime is how long a lease lasts. It is longer than an invocation of a function, so that only a sandbox that died or
// froze loses a lease.
const LeaseTime = 75 * time.Second

// setLease takes or prolongs the writer's lease on a record with KeepLease, and otherwise returns it.
func (r *Record) setLease(w Write, now time.Time) {
	r.LeaseOwner, r.LeaseExpiresAt = "", 0
	if w.KeepLease {
		r.LeaseOwner, r.LeaseExpiresAt = w.Owner, now.Add(LeaseTime).UnixMilli()
	}
}

// condition returns the DynamoDB condition of a write, with its values: the record has the version that was read, and its
// lease is the writer's own, returned or expired. Leases are compared by wall-clock time, which goes on while a sandbox is
// frozen.
func (w Write) condition(now time.Time) (string, map[string]types.AttributeValue) {
	if w.Old == nil {
		return "attribute_not_exists(pk)", nil
	}
	number := func(n int64) types.AttributeValue {
		return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
	}
	return "version = :version AND (attribute_not_exists(lease_owner) OR lease_owner = :owner OR lease_expires_at < :now)",
		map[string]types.AttributeValue{
			":version": number(w.Old.Version),
			":owner":   stringValue(w.Owner),
			":now":     number(now.UnixMilli()),
		}
}
