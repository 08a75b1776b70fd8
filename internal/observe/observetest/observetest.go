// Package observetest lists all metrics and log keys of package observe, for tests that hold docs/metrics.md and the functions'
// output against them.
package observetest

import (
	"log/slog"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// MetricNames returns the names of all metrics in the order of docs/metrics.md: counts, and times in milliseconds.
func MetricNames() (counts, times []string) {
	counts = []string{
		observe.Provisioned, observe.Deprovisioned, observe.Unchanged, observe.Unmatched, observe.LeftAlone, observe.Refused,
		observe.Conflicting, observe.Retried, observe.Ignored, observe.Malformed,
		observe.DriftMissing, observe.DriftChanged, observe.DriftOrphaned, observe.DriftConflict, observe.DriftCorrected,
		observe.DriftFailed, observe.DriftEnqueued,
		observe.Reconciled, observe.Blocked, observe.ProfilesRefused, observe.VaultThrottles, observe.EC2Throttles, observe.DynamoDBThrottles, observe.AuditFailed,
		observe.HookContinued, observe.HookAbandoned, observe.Quarantined, observe.Released, observe.TagFailed,
	}
	times = []string{
		observe.TimeToReady, observe.TimeToCutOff, observe.VaultLatency, observe.EC2Latency, observe.DynamoDBLatency, observe.QueueAge,
		observe.SweepAge,
	}
	return counts, times
}

// Keys returns all keys that a log line can have. Every line has the first three.
func Keys() []string {
	return []string{
		slog.TimeKey, slog.LevelKey, slog.MessageKey,
		observe.KeyInstance, observe.KeyAccount, observe.KeyRegion, observe.KeyProfile, observe.KeyFQDN, observe.KeyState,
		observe.KeyAction, observe.KeyKind, observe.KeyError, observe.KeyObjects, observe.KeyCut, observe.KeyDuration,
		observe.KeyMessage, observe.KeyRequest, observe.KeyTrace, observe.KeyEvents, observe.KeyAudit, observe.KeyObject,
		observe.KeyPath, observe.KeyReason, observe.KeyFields, observe.KeyDiff, observe.KeyMode, observe.KeyScanned,
		observe.KeySummary, observe.KeyBlocked, observe.KeyBy, observe.KeyGroup, observe.KeyHook, observe.KeyResult, observe.KeyTakenBy,
		observe.KeyNamespace, observe.KeyProfiles, observe.KeyVersion,
	}
}
