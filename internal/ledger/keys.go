package ledger

import (
	"fmt"
	"strings"
)

// keyAttribute is the table's partition key. The expressions of the writes name it too.
const keyAttribute = "pk"

// The prefixes of the keys, which the functions' IAM policies in template.yaml name too.
const (
	recordPrefix  = "instance#"
	claimPrefix   = "claim#"
	waitingPrefix = "waiting#"
)

// RecordKey returns the key of an instance's record.
func RecordKey(instanceID string) string { return recordPrefix + instanceID }

// WaitingKey returns the key of the item with the instances that wait for a name of a holder.
func WaitingKey(holder string) string { return waitingPrefix + holder }

// SplitRecordKey returns the instance whose record has a key. ok is false for a key of another kind.
func SplitRecordKey(key string) (instanceID string, ok bool) {
	return strings.CutPrefix(key, recordPrefix)
}

// ClaimKey returns the key of the claim on a name. It panics for a name that grant does not render.
//
// No two names have the same key: neither paths nor names hold a #. Base paths and PKI mounts are all different, since a
// mount is below a base path and no base path is below another.
func ClaimKey(n Name) string {
	if strings.Contains(n.Under, "#") || strings.Contains(n.Text, "#") || n.Text == "" {
		panic(fmt.Sprintf("the name %q below %q has no key: grant must not render it", n.Text, n.Under))
	}
	return claimPrefix + n.Under + "#" + n.Text
}

// SplitClaimKey returns the name whose claim has a key. ok is false for a key of another kind.
func SplitClaimKey(key string) (n Name, ok bool) {
	rest, isClaim := strings.CutPrefix(key, claimPrefix)
	under, text, whole := strings.Cut(rest, "#")
	if !isClaim || !whole || strings.Contains(text, "#") {
		return Name{}, false
	}
	return Name{Under: under, Text: text}, true
}
