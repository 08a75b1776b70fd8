// Package observe defines the functions' log lines and metrics: JSON lines with a fixed list of keys, and metrics in
// CloudWatch's embedded format. internal/handler writes them; the clients of AWS and Vault count their calls in Services.
package observe

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// The keys of log lines. No value holds a token, a secret or a request body.
const (
	KeyInstance = "instance"
	KeyAccount  = "account"
	KeyRegion   = "region"
	KeyProfile  = "profile"
	KeyFQDN     = "fqdn"
	KeyState    = "state"
	KeyAction   = "action"
	KeyKind     = "kind" // of a fault: retry, refuse, conflict
	KeyError    = "error"
	KeyObjects  = "objects"
	KeyCut      = "entities_cut"
	KeyTakenBy  = "taken_over_by" // the instance that gets the name of the removed one
	KeyDuration = "duration_ms"
	KeyMessage  = "message_id"
	KeyRequest  = "request_id"
	KeyTrace    = "trace_id" // X-Ray's, where the invocation has one
	KeyEvents   = "events"
	KeyAudit    = "audit"
	KeyObject   = "object"
	KeyPath     = "path"
	KeyReason   = "reason"
	KeyFields   = "fields"
	KeyDiff     = "diff"
	KeyMode     = "mode"
	KeyScanned  = "scanned"
	KeySummary  = "summary"
	KeyBlocked  = "blocked"
	KeyBy       = "by"    // who ordered a quarantine or its release, as the order says
	KeyGroup    = "group" // Auto Scaling's
	KeyHook     = "hook"
	KeyResult   = "result"
	KeyVersion  = "version"  // of the program, in the line of a sandbox's start
	KeyProfiles = "profiles" // the beginning of the digest of the profiles in use, if they come from the ledger
	// KeyNamespace is in every line if Vault's namespace is not the root one.
	KeyNamespace = "vault_namespace"
)

// NewLogger makes a logger that writes JSON lines of a level and above.
func NewLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

// The names of the metrics: counts, then times in milliseconds.
const (
	Provisioned       = "Provisioned"
	Deprovisioned     = "Deprovisioned"
	Unchanged         = "Unchanged"
	Unmatched         = "Unmatched"
	LeftAlone         = "LeftAlone"
	Refused           = "Refused"
	Conflicting       = "Conflicting"
	Retried           = "Retried"
	Ignored           = "Ignored"
	Malformed         = "Malformed"
	DriftMissing      = "DriftMissing" // rows of drift, by reason
	DriftChanged      = "DriftChanged"
	DriftOrphaned     = "DriftOrphaned"
	DriftConflict     = "DriftConflicting"
	DriftCorrected    = "DriftCorrected" // rows of drift, by result
	DriftFailed       = "DriftFailed"
	DriftEnqueued     = "DriftEnqueued"
	Reconciled        = "Reconciled"      // runs of reconcile that reached the end
	Blocked           = "Blocked"         // comparisons that withheld deletes because of a doubt
	ProfilesRefused   = "ProfilesRefused" // invocations with other profiles than the wanted ones, which do not load
	VaultThrottles    = "VaultThrottles"  // calls refused because of a rate limit
	EC2Throttles      = "EC2Throttles"
	DynamoDBThrottles = "DynamoDBThrottles"
	AuditFailed       = "AuditFailed"   // audit events that did not reach the event bus
	HookContinued     = "HookContinued" // completed lifecycle hooks of Auto Scaling, by result
	HookAbandoned     = "HookAbandoned"
	Quarantined       = "Quarantined" // instances put into quarantine
	Released          = "Released"    // instances released from it
	TagFailed         = "TagFailed"   // instances whose readiness tag could not be set

	TimeToReady     = "TimeToReady"  // from the event's time until the auth role is active
	TimeToCutOff    = "TimeToCutOff" // from the event's time until the instance's tokens are refused
	VaultLatency    = "VaultLatency" // of each call; a retry is a call of its own
	EC2Latency      = "EC2Latency"
	DynamoDBLatency = "DynamoDBLatency"
	QueueAge        = "QueueAge" // from sending a message to the start of its work
	SweepAge        = "SweepAge" // age of the first list of the whole fleet at the end of its comparison
)

const (
	metricsSpace   = "VaultEC2Provisioner"
	maxPerMetric   = 100 // values in one line, the format's limit
	unitCount      = "Count"
	unitMillis     = "Milliseconds"
	dimDeployment  = "Deployment"
	dimFunction    = "Function"
	emfMetadataKey = "_aws"
)

// Metrics collects the metrics of one invocation. It is safe for concurrent use.
type Metrics struct {
	Deployment string
	Function   string

	mu         sync.Mutex
	counts     map[string]int
	times      map[string][]int64
	histograms map[string]values
}

// Count adds one to a count.
func (m *Metrics) Count(name string) { m.Add(name, 1) }

// Add adds n to a count. A count of 0 is written too.
func (m *Metrics) Add(name string, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counts == nil {
		m.counts = map[string]int{}
	}
	m.counts[name] += n
}

// Time adds a duration to a time.
func (m *Metrics) Time(name string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.times == nil {
		m.times = map[string][]int64{}
	}
	m.times[name] = append(m.times[name], d.Milliseconds())
}

// Write writes the collected metrics and clears them. It writes one line for each hundred values of a time, and none if there
// are no metrics.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
func (m *Metrics) Write(w io.Writer, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.counts)+len(m.times)+len(m.histograms) > 0 {
		line := map[string]any{dimDeployment: m.Deployment, dimFunction: m.Function}
		var metrics []map[string]string
		for _, name := range slices.Sorted(maps.Keys(m.counts)) {
			line[name] = m.counts[name]
			metrics = append(metrics, map[string]string{"Name": name, "Unit": unitCount})
		}
		for _, name := range slices.Sorted(maps.Keys(m.histograms)) {
			line[name] = m.histograms[name]
			metrics = append(metrics, map[string]string{"Name": name, "Unit": unitMillis})
		}
		m.counts, m.histograms = nil, nil
		for _, name := range slices.Sorted(maps.Keys(m.times)) {
			values := m.times[name]
			n := min(len(values), maxPerMetric)
			line[name] = values[:n]
			metrics = append(metrics, map[string]string{"Name": name, "Unit": unitMillis})
			if m.times[name] = values[n:]; len(values) == n {
				delete(m.times, name)
			}
		}
		line[emfMetadataKey] = map[string]any{
			"Timestamp": now.UnixMilli(),
			"CloudWatchMetrics": []map[string]any{{
				"Namespace": metricsSpace, "Dimensions": [][]string{{dimDeployment, dimFunction}}, "Metrics": metrics,
			}},
		}
		text, err := json.Marshal(line)
		if err != nil {
			return fmt.Errorf("writing the metrics: %w", err)
		}
		if _, err := fmt.Fprintf(w, "%s\n", text); err != nil {
			return fmt.Errorf("writing the metrics: %w", err)
		}
	}
	return nil
}
