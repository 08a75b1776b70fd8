// Package observe writes what a function tells of itself: JSON log lines with a fixed list of keys, metrics in
// CloudWatch's embedded format, and audit lines for who was granted and who was refused what.
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

// The keys of log lines. None of them ever holds a token, a secret or a request body.
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
	KeyTakenBy  = "taken_over_by" // the instance that takes a name of the one that is removed
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
	KeyGroup    = "group" // Auto Scaling's
	KeyHook     = "hook"
	KeyResult   = "result"
)

// Keys are all keys a log line can have; the first three are those of every line.
func Keys() []string {
	return []string{
		slog.TimeKey, slog.LevelKey, slog.MessageKey,
		KeyInstance, KeyAccount, KeyRegion, KeyProfile, KeyFQDN, KeyState, KeyAction, KeyKind, KeyError, KeyObjects, KeyCut,
		KeyDuration, KeyMessage, KeyRequest, KeyTrace, KeyEvents, KeyAudit, KeyObject, KeyPath, KeyReason, KeyFields, KeyDiff,
		KeyMode, KeyScanned, KeySummary, KeyBlocked, KeyGroup, KeyHook, KeyResult, KeyTakenBy,
	}
}

// NewLogger writes JSON lines of a level and above.
func NewLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

// The metrics, by name: counts, and below them times in milliseconds.
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
	DriftMissing      = "DriftMissing" // rows of reconcile's, by reason
	DriftChanged      = "DriftChanged"
	DriftOrphaned     = "DriftOrphaned"
	DriftConflict     = "DriftConflicting"
	DriftCorrected    = "DriftCorrected" // and by what became of them
	DriftFailed       = "DriftFailed"
	DriftEnqueued     = "DriftEnqueued"
	Reconciled        = "Reconciled"     // runs that came to their end
	Blocked           = "Blocked"        // runs that deleted nothing because of a doubt
	VaultThrottles    = "VaultThrottles" // calls refused for coming too often
	EC2Throttles      = "EC2Throttles"
	DynamoDBThrottles = "DynamoDBThrottles"
	AuditFailed       = "AuditFailed"   // audit events that did not reach the event bus
	HookContinued     = "HookContinued" // lifecycle hooks of Auto Scaling, by how their wait was ended
	HookAbandoned     = "HookAbandoned"
	TagFailed         = "TagFailed" // instances that could not be tagged with what became of them

	TimeToReady     = "TimeToReady"  // from the event's own time to the auth role being active
	TimeToCutOff    = "TimeToCutOff" // from the event's own time to the instance's tokens being refused
	VaultLatency    = "VaultLatency" // of each call, a retry being a call of its own
	EC2Latency      = "EC2Latency"
	DynamoDBLatency = "DynamoDBLatency"
	QueueAge        = "QueueAge" // from the message being sent to the work on it being begun
	SweepAge        = "SweepAge" // how old the first list of a whole fleet is when its comparison ends
)

const (
	metricsSpace   = "VaultEC2Provisioner"
	maxPerMetric   = 100 // values in one line, by the format's rules
	unitCount      = "Count"
	unitMillis     = "Milliseconds"
	dimDeployment  = "Deployment"
	dimFunction    = "Function"
	emfMetadataKey = "_aws"
)

// Metrics gathers the metrics of one invocation. It is safe for concurrent use.
type Metrics struct {
	Deployment string
	Function   string

	mu         sync.Mutex
	counts     map[string]int
	times      map[string][]int64
	histograms map[string]values
}

// Count adds one.
func (m *Metrics) Count(name string) { m.Add(name, 1) }

// Add adds n; 0 too is told.
func (m *Metrics) Add(name string, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counts == nil {
		m.counts = map[string]int{}
	}
	m.counts[name] += n
}

// Time adds a duration.
func (m *Metrics) Time(name string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.times == nil {
		m.times = map[string][]int64{}
	}
	m.times[name] = append(m.times[name], d.Milliseconds())
}

// Write writes what was gathered, one line for each hundred values of a time, and starts anew. Nothing is written
// when nothing was gathered.
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
