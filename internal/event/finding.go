package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// GuardDuty's event for a finding.
// https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings_eventbridge.html
const (
	findingSource   = "aws.guardduty"
	findingKind     = "GuardDuty Finding"
	findingInstance = "Instance"
)

// Finding is a finding of GuardDuty about one instance.
type Finding struct {
	ID       string
	Type     string
	Severity float64 // 1 to 10
	// Sample reports whether an operator had GuardDuty make the finding up.
	Sample   bool
	Archived bool
	// LastSeen is when GuardDuty last saw what the finding is about; zero if the event does not say so.
	LastSeen time.Time
	// Sender is the account whose GuardDuty sent the event: that of the instance, or that of an administrator of GuardDuty.
	Sender string
}

// These bound what is stored and shown of a finding. A type has characters such as in Backdoor:EC2/C&CActivity.B!DNS.
var (
	findingID   = facts.NewForm(`^[A-Za-z0-9_-]+$`, 64)
	findingType = facts.NewForm(`^[!-~]+$`, 128)
)

type findingDetail struct {
	AccountID string
	Region    string
	ID        string
	Type      string
	Severity  float64
	Resource  struct {
		ResourceType    string
		InstanceDetails struct{ InstanceID string }
	}
	Service struct {
		Archived       bool
		EventLastSeen  time.Time
		AdditionalInfo json.RawMessage
	}
}

// parseFinding parses the detail of a finding; sender is the place of the event's envelope. The instance is in the account that the
// detail names, and in the sender's region: GuardDuty is regional. The caller decides whether the sender may speak for the account.
func parseFinding(text json.RawMessage, sender facts.Place) (facts.Ref, *Finding, error) {
	var d findingDetail
	if err := json.Unmarshal(text, &d); err != nil {
		return facts.Ref{}, nil, fault.Refusef("reading the finding's detail: %w", err)
	}
	id := d.Resource.InstanceDetails.InstanceID
	switch {
	case d.Resource.ResourceType != findingInstance:
		return facts.Ref{}, nil, fault.New(fault.Refuse, fmt.Errorf("a finding about a resource of type %+q: %w", d.Resource.ResourceType, ErrIgnored))
	case !findingID.Match(d.ID):
		return facts.Ref{}, nil, fault.Refusef("the finding about instance %+q: %+q is not the ID of a finding", id, d.ID)
	case !findingType.Match(d.Type):
		return facts.Ref{}, nil, fault.Refusef("the finding %s about instance %+q: %+q is not the type of a finding", d.ID, id, d.Type)
	case d.Region != sender.Region:
		return facts.Ref{}, nil, fault.Refusef("the finding %s about instance %+q: it is of region %+q, and the event is of %+q", d.ID, id, d.Region, sender.Region)
	}
	return facts.Ref{ID: id, Place: facts.Place{Account: d.AccountID, Region: d.Region}}, &Finding{
		ID: d.ID, Type: d.Type, Severity: d.Severity, Sample: isSample(d.Service.AdditionalInfo), Archived: d.Service.Archived,
		LastSeen: d.Service.EventLastSeen, Sender: sender.Account,
	}, nil
}

// isSample reports whether a finding's additional information says that the finding is a sample. It is an object, or an object whose
// value is the text of one. Information of another form says nothing of a sample.
func isSample(info json.RawMessage) bool {
	var d struct {
		Sample json.RawMessage
		Value  string
	}
	// An error of one field leaves the other one read.
	_ = json.Unmarshal(info, &d)
	isTrue := bytes.Equal(d.Sample, []byte("true")) || bytes.Equal(d.Sample, []byte(`"true"`))
	return isTrue || (d.Value != "" && isSample(json.RawMessage(d.Value)))
}
