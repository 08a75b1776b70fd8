package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/alarms"
)

// The days of these tests, in minutes. An outage begins after half a day, with all alarms quiet.
const (
	runsEvery  = 60 // the schedule's default
	begins     = 13*60 + 17
	settles    = 9 * 60 // after an outage, until every alarm must be quiet: the longest looks back four hours
	batchEvery = 2      // the visibility timeout: a message that came back is tried again
	givenUp    = 70     // tries times visibility timeout: the message goes to the dead-letter queue
)

// day is the stream of one day. While it is broken, its outage may keep the functions from running.
type day struct {
	alarms.Stream
	until                   int  // end of the outage
	isIdle                  bool // no instance starts or ends
	noFunctions, noSchedule bool
	notCompared             bool // runs end, but give the fleet up
}

func own(name, function string) alarms.Metric {
	return alarms.Metric{Namespace: "VaultEC2Provisioner", Name: name, Of: function}
}

func ofLambda(name, function string) alarms.Metric {
	return alarms.Metric{Namespace: "AWS/Lambda", Name: name, Of: strings.ToUpper(function[:1]) + function[1:] + "Function"}
}

func visible(queue string) alarms.Metric {
	return alarms.Metric{Namespace: "AWS/SQS", Name: "ApproximateNumberOfMessagesVisible", Of: queue}
}

func (d *day) add(m alarms.Metric, minute int, value float64) {
	d.Stream[m] = append(d.Stream[m], alarms.Sample{Minute: minute, Value: value})
}

// deadLetters puts messages into a dead-letter queue until half an hour after the outage.
func (d *day) deadLetters(queue string, from int) {
	for minute := from; minute < d.until+30; minute++ {
		d.add(visible(queue), minute, 2)
	}
}

// outage is a row of the matrix: a fault, and the alarms that must go off in it; all others must stay quiet.
type outage struct {
	name    string
	minutes int
	rings   []string
	before  func(*day)                     // sets what does not work
	broken  func(d *day, minute, into int) // adds the samples of a minute, into the outage by so many
	run     func(d *day, minute int)       // adds the samples of a run of reconcile during the outage
	after   func(d *day)                   // adds samples that outlast the outage
}

var threeFunctions = []string{"provision", "deprovision", "reconcile"}

// outages are the rows of the matrix outage × alarm.
func outages() []outage {
	rows := []outage{
		{name: "a fleet in which nothing happens", minutes: 360, before: func(d *day) { d.isIdle = true }},
		{name: "Vault is sealed for ten minutes", minutes: 10, broken: retriesFor("provision", "deprovision")},
		{
			name: "Vault is sealed for three hours", minutes: 180,
			rings:  []string{"retrying", "oldest-event", "provision-dead-letters", "deprovision-dead-letters", "blocked", "reconcile-not-run"},
			before: func(d *day) { d.notCompared = true },
			broken: retriesFor("provision", "deprovision"),
			run:    func(d *day, minute int) { d.add(own("Blocked", "reconcile"), minute, 1) },
			after: func(d *day) {
				d.deadLetters("ProvisionDeadLetterQueue", begins+givenUp)
				d.deadLetters("DeprovisionDeadLetterQueue", begins+givenUp)
			},
		},
		{name: "one instance cannot be granted for an hour", minutes: 60, rings: []string{"retrying", "oldest-event"}, broken: retriesFor("provision")},
		{name: "one instance cannot be removed for an hour", minutes: 60, rings: []string{"retrying", "oldest-event"}, broken: retriesFor("deprovision")},
		{
			name: "a storm that takes forty minutes", minutes: 40, rings: []string{"oldest-event"},
			broken: func(d *day, minute, into int) { d.add(own("QueueAge", "provision"), minute, float64(into*60_000)) },
		},
		{
			name: "the functions cannot start for three hours", minutes: 180,
			rings:  []string{"errors", "provision-dead-letters", "deprovision-dead-letters", "reconcile-not-run"},
			before: func(d *day) { d.noFunctions = true },
			broken: func(d *day, minute, _ int) {
				if minute%batchEvery == 0 {
					d.add(ofLambda("Errors", "provision"), minute, 1)
					d.add(ofLambda("Errors", "deprovision"), minute, 1)
				}
				if minute%runsEvery == 0 {
					d.add(ofLambda("Errors", "reconcile"), minute, 1)
				}
			},
			after: func(d *day) {
				d.deadLetters("ProvisionDeadLetterQueue", begins+givenUp)
				d.deadLetters("DeprovisionDeadLetterQueue", begins+givenUp)
			},
		},
		{name: "the schedule's rule is disabled", minutes: 360, rings: []string{"reconcile-not-run"}, before: func(d *day) { d.noSchedule = true }},
		{
			name: "a region cannot be listed", minutes: 360, rings: []string{"blocked"},
			run: func(d *day, minute int) { d.add(own("Blocked", "reconcile"), minute, 1) },
		},
		{
			name: "one run is blocked", minutes: runsEvery, rings: []string{"blocked"},
			run: func(d *day, minute int) { d.add(own("Blocked", "reconcile"), minute, 1) },
		},
		{
			name: "profiles that do not load are activated in a quiet fleet", minutes: 360, rings: []string{"profiles-refused"},
			before: func(d *day) { d.isIdle = true },
			run:    func(d *day, minute int) { d.add(own("ProfilesRefused", "reconcile"), minute, 1) },
		},
		{
			name: "profiles that do not load are activated in a busy fleet", minutes: 60, rings: []string{"profiles-refused"},
			broken: func(d *day, minute, into int) {
				if into%batchEvery == 0 {
					d.add(own("ProfilesRefused", "provision"), minute, 1)
					d.add(own("ProfilesRefused", "deprovision"), minute, 1)
				}
			},
		},
		{
			name: "a part of a comparison fails three times", minutes: 90, rings: []string{"errors", "reconcile-dead-letters"},
			broken: func(d *day, minute, into int) {
				if into%30 == 0 { // the visibility timeout of its queue
					d.add(ofLambda("Errors", "reconcile"), minute, 1)
				}
			},
			after: func(d *day) { d.deadLetters("ReconcileDeadLetterQueue", d.until) },
		},
		{
			name: "a foreign object stays in the way of a repair", minutes: 360, rings: []string{"conflicting", "drift-stays"},
			run: func(d *day, minute int) { d.add(own("DriftConflicting", "reconcile"), minute, 1) },
		},
		{
			name: "drift that the next run repairs", minutes: 2 * runsEvery, rings: nil,
			run: func(d *day, minute int) {
				d.add(own("DriftMissing", "reconcile"), minute, 3)
				d.add(own("DriftEnqueued", "reconcile"), minute, 3)
			},
		},
	}
	for _, reason := range []string{"DriftMissing", "DriftChanged", "DriftOrphaned", "DriftFailed"} {
		rows = append(rows, outage{
			name: reason + " in each run", minutes: 360, rings: []string{"drift-stays"},
			run: func(d *day, minute int) { d.add(own(reason, "reconcile"), minute, 3) },
		})
	}
	for _, function := range threeFunctions {
		for name, alarm := range map[string]string{"Refused": "refused", "Conflicting": "conflicting", "Malformed": "malformed", "AuditFailed": "audit-failed"} {
			rows = append(rows, outage{name: name + " by " + function, minutes: 1, rings: []string{alarm}, broken: once(own(name, function))})
		}
		rows = append(rows,
			outage{name: function + " crashes once", minutes: 1, rings: []string{"errors"}, broken: once(ofLambda("Errors", function))},
			outage{name: function + " is throttled for five minutes", minutes: 5, broken: once(ofLambda("Throttles", function))},
			outage{
				name: function + " is throttled for forty minutes", minutes: 40, rings: []string{"throttled"},
				before: func(d *day) { d.noFunctions = true }, broken: once(ofLambda("Throttles", function)),
			})
	}
	for alarm, rules := range map[string][]string{
		"events-undelivered": {"ProvisionRule", "DeprovisionRule", "LaunchHookRule", "TerminateHookRule", "TagRule", "FindingRule"},
		"forwarding-failed":  {"ForwardRule", "ForwardHooksRule", "ForwardTagsRule"},
	} {
		for _, rule := range rules {
			m := alarms.Metric{Namespace: "AWS/Events", Name: "FailedInvocations", Of: rule}
			rows = append(rows, outage{name: "the target of " + rule + " refuses an event", minutes: 1, rings: []string{alarm}, broken: once(m)})
		}
	}
	return rows
}

// once adds one occurrence in each minute.
func once(m alarms.Metric) func(*day, int, int) {
	return func(d *day, minute, _ int) { d.add(m, minute, 1) }
}

// retriesFor has messages of these functions come back until they are given up.
func retriesFor(functions ...string) func(*day, int, int) {
	return func(d *day, minute, into int) {
		if into%batchEvery != 0 {
			return
		}
		for _, f := range functions {
			d.add(own("QueueAge", f), minute, float64(min(into, givenUp)*60_000))
			d.add(own("Retried", f), minute, 1)
		}
	}
}

// play returns the stream of a day with an outage, and the day's end.
func (o outage) play() (alarms.Stream, int) {
	d := &day{Stream: alarms.Stream{}, until: begins + o.minutes}
	if o.before != nil {
		o.before(d)
	}
	end := d.until + settles
	for minute := range end {
		isBroken := minute >= begins && minute < d.until
		d.common(minute, isBroken)
		if isBroken && o.broken != nil {
			o.broken(d, minute, minute-begins)
		}
		if isRun := minute > 0 && minute%runsEvery == 0; isRun && isBroken && o.run != nil && !d.noSchedule {
			o.run(d, minute)
		}
	}
	if o.after != nil {
		o.after(d)
	}
	return d.Stream, end
}

// common adds what the functions and AWS report in a minute of any day. AWS reports a queue that is polled, and the errors and
// throttles of each invocation as 0.
func (d *day) common(minute int, isBroken bool) {
	if minute%5 == 0 && minute > 0 { // every minute in truth
		d.add(visible("ReconcileQueue"), minute, 0)
	}
	if isBroken && d.noFunctions {
		return
	}
	isNight := minute > 120 && minute < 400
	if minute%10 == 0 && !isNight && (!d.isIdle || !isBroken) {
		for _, f := range threeFunctions[:2] {
			d.add(own("QueueAge", f), minute, 1500)
			d.add(ofLambda("Errors", f), minute, 0)
			d.add(ofLambda("Throttles", f), minute, 0)
		}
	}
	if minute == 50 || minute == 52 { // an instance whose name EC2 does not show yet
		d.add(own("Retried", "provision"), minute, 1)
	}
	if minute == 0 || minute%runsEvery != 0 || (isBroken && d.noSchedule) {
		return
	}
	for _, name := range []string{"DriftMissing", "DriftChanged", "DriftOrphaned", "DriftConflicting", "DriftFailed", "DriftCorrected", "DriftEnqueued", "Blocked"} {
		d.add(own(name, "reconcile"), minute, 0)
	}
	if minute == 4*runsEvery { // a lost event, repaired
		d.add(own("DriftMissing", "reconcile"), minute, 2)
		d.add(own("DriftCorrected", "reconcile"), minute, 2)
	}
	if !isBroken || !d.notCompared {
		d.add(own("SweepAge", "reconcile"), minute, 8000)
	}
}

// deployedAlarms returns all alarms of both templates, as a first deployment with a topic makes them, by the end of their name.
func deployedAlarms(t *testing.T) map[string]alarms.Alarm {
	t.Helper()
	central, inMember := maps.Clone(bare), member()
	central["AlarmTopicArn"], inMember["AlarmTopicArn"] = full["AlarmTopicArn"], full["AlarmTopicArn"]
	central["QuarantineSeverity"] = full["QuarantineSeverity"]
	out := map[string]alarms.Alarm{}
	for _, resources := range []map[string]any{resolved(t, central), resolve(t, shared(t, memberTemplate), inMember)} {
		for id, properties := range each(t, resources, "AWS::CloudWatch::Alarm") {
			a, err := alarms.Read(properties, func(v any) string {
				if resource, ok := LogicalID(v); ok {
					return resource
				}
				return fmt.Sprint(v)
			})
			if err != nil {
				t.Fatalf("alarm %s: %v", id, err)
			}
			name, _ := object(properties["AlarmName"])["Fn::Sub"].(string)
			out[strings.TrimPrefix(name, "${AWS::StackName}-")] = a
		}
	}
	return out
}

// Each alarm goes off in the outages of its rows and in no other, and is quiet again at the end. An alarm in no row fails.
func TestAlarms_RingInTheirOutageAlone(t *testing.T) {
	deployed := deployedAlarms(t)
	hasRow, reported := map[string]bool{}, map[alarms.Metric]bool{}
	for _, o := range outages() {
		stream, end := o.play()
		for m := range stream {
			reported[m] = true
		}
		for _, name := range o.rings {
			hasRow[name] = true
			if _, ok := deployed[name]; !ok {
				t.Errorf("%s: no template has the alarm %s", o.name, name)
			}
		}
		for name, a := range deployed {
			for _, reading := range alarms.Readings() {
				rang, last := inOutage(a.Walk(stream, end, reading))
				if want := slices.Contains(o.rings, name); rang != want {
					t.Errorf("%s: the alarm %s goes off: %v, want %v (%+v)", o.name, name, rang, want, reading)
				}
				if last == alarms.Alarming {
					t.Errorf("%s: the alarm %s is still on %d minutes after the end (%+v)", o.name, name, settles, reading)
				}
			}
		}
	}
	for name, a := range deployed {
		if !hasRow[name] {
			t.Errorf("the alarm %s has no row: in which outage must it go off?", name)
		}
		for _, m := range a.Metrics() {
			if !reported[m] {
				t.Errorf("the alarm %s watches %+v, which no row reports", name, m)
			}
		}
	}
}

// inOutage reports whether an alarm went off after an outage began, and its last state.
func inOutage(changes []alarms.Change) (rang bool, last alarms.State) {
	for _, c := range changes {
		rang = rang || (c.To == alarms.Alarming && c.Minute >= begins)
		last = c.To
	}
	return rang, last
}

// A first deployment sends no message until something is wrong, and reports a schedule that never runs.
func TestAlarms_OfANewStackAreQuiet(t *testing.T) {
	stream, end := outage{minutes: 1}.play()
	neverRun, _ := outage{minutes: 1}.play()
	delete(neverRun, own("SweepAge", "reconcile"))
	for name, a := range deployedAlarms(t) {
		for _, c := range a.Walk(stream, end, alarms.Reading{}) {
			if c.To == alarms.Alarming {
				t.Errorf("the alarm %s of a new stack goes off in minute %d of a good day", name, c.Minute)
			}
		}
		if rings := slices.ContainsFunc(a.Walk(neverRun, end, alarms.Reading{}), func(c alarms.Change) bool {
			return c.To == alarms.Alarming && c.Minute > runsEvery && c.Minute <= 2*runsEvery
		}); rings != (name == "reconcile-not-run") {
			t.Errorf("no run of a new stack ends for two hours: the alarm %s goes off: %v", name, rings)
		}
	}
	parameters := maps.Clone(bare)
	parameters["AlarmTopicArn"] = full["AlarmTopicArn"]
	for id, alarm := range each(t, resolved(t, parameters), "AWS::CloudWatch::Alarm") {
		if alarm["OKActions"] != nil {
			t.Errorf("alarm %s sends a message for its first state, OK", id)
		}
	}
}
