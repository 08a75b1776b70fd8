package dashboard

import "github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/alarms"

// missing returns the reason why no scene has a metric that the template names; empty if a scene must have it.
func missing(m alarms.Metric) string {
	switch {
	case m.Namespace == "AWS/SQS" && m.Name == "ApproximateAgeOfOldestMessage":
		return "moto does not report the age of a message"
	case m.Namespace == "AWS/Lambda" && m.Name == "Throttles":
		return "the lab's sandboxes wait for a free one and throttle nothing"
	case m.Namespace == "AWS/Events" && m.Name == "FailedInvocations":
		return "moto's EventBridge reports no failed delivery"
	case m.Namespace != OwnNamespace:
		return ""
	}
	return unrecorded()[m.Name+" "+m.Of]
}

// unrecorded are metrics of the functions, each with its function, that need a fault that no scene has.
func unrecorded() map[string]string {
	const repair = "a repair that is refused or in conflict: the scenes repair missing objects of running instances alone"
	const order = "a person's order: no scene has one"
	const refused = "profiles in the ledger that do not load; the scenes use the built-in ones"
	return map[string]string{
		"LeftAlone deprovision":       "an event of an end that EC2 does not confirm is tried again first, for longer than a scene",
		"Refused reconcile":           repair,
		"Conflicting deprovision":     "a token that cannot be cut: no instance of a scene has logged in",
		"Conflicting reconcile":       repair,
		"AuditFailed reconcile":       "an audit event of a repair that the bus does not take: the scenes' bus takes these",
		"Quarantined reconcile":       order,
		"Released reconcile":          order,
		"ProfilesRefused provision":   refused,
		"ProfilesRefused deprovision": refused,
		"ProfilesRefused reconcile":   refused,
	}
}

// notShown returns the reason why neither a widget nor an alarm shows a metric that a scene has; empty if one must.
func notShown(m alarms.Metric) string {
	if m.Namespace != OwnNamespace {
		return ""
	}
	const repair = "a repair by reconcile: the counts of drift show it"
	return map[string]string{
		"Provisioned reconcile": repair,
		"TagFailed reconcile":   "the readiness tag is tried again with each repair; the first failure is the provision function's, and is shown",
		"Unchanged deprovision": "an end that was handled before: nothing to look at",
	}[m.Name+" "+m.Of]
}
