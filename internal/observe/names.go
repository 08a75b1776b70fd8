package observe

// MetricNames are all metrics there are, as docs/metrics.md tells of them: counts, then times in milliseconds.
func MetricNames() (counts, times []string) {
	counts = []string{
		Provisioned, Deprovisioned, Unchanged, Unmatched, LeftAlone, Refused, Conflicting, Retried, Ignored, Malformed,
		DriftMissing, DriftChanged, DriftOrphaned, DriftConflict, DriftCorrected, DriftFailed, DriftEnqueued,
		Reconciled, Blocked, VaultThrottles, EC2Throttles, DynamoDBThrottles, AuditFailed,
		HookContinued, HookAbandoned, TagFailed,
	}
	times = []string{TimeToReady, TimeToCutOff, VaultLatency, EC2Latency, DynamoDBLatency, QueueAge, SweepAge}
	return counts, times
}
