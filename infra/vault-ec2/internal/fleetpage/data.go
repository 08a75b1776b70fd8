package fleetpage

import (
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/report"
)

// Data is what the page shows. Rows are lists of values in the order of their columns, and texts in them are places in Texts: a fleet of
// 10,000 instances takes a few megabytes so.
type Data struct {
	Head    Head      `json:"head"`
	Omitted []Omitted `json:"omitted"`
	// Comparison is nil if the fleet was not compared.
	Comparison *Comparison `json:"comparison"`

	Texts           []string `json:"texts"`
	InstanceColumns []string `json:"instanceColumns"`
	Instances       [][]any  `json:"instances"`
	NameColumns     []string `json:"nameColumns"`
	Names           [][]any  `json:"names"`
	// Quarantines are the marks, also of instances that were released or have ended.
	Quarantines []Quarantine `json:"quarantines"`
}

// Head says of which deployment the report is, and when and how it was made.
type Head struct {
	Deployment string     `json:"deployment"`
	Namespace  string     `json:"namespace"`
	Account    string     `json:"account"`
	Region     string     `json:"region"`
	Function   string     `json:"function"`
	Program    string     `json:"program"`  // the function's version
	Command    string     `json:"command"`  // the version of vault-ec2
	Profiles   string     `json:"profiles"` // the digest of the active ones
	TornDown   *time.Time `json:"tornDown"`
	// From and To are when the reading of the ledger began and ended.
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Requests []string  `json:"requests"` // the IDs of the invocations that read the ledger
}

// Quarantine is the mark of an instance.
type Quarantine struct {
	InstanceID string `json:"instanceId"`
	report.Quarantine
}

// Omitted is something that is not in the report.
type Omitted struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Comparison is the fleet's comparison by mode detect.
type Comparison struct {
	At         time.Time         `json:"at"`
	DurationMs int64             `json:"durationMs"`
	Scanned    reconcile.Scanned `json:"scanned"`
	Summary    reconcile.Summary `json:"summary"`
	Drift      []reconcile.Drift `json:"drift"`
}

// Source is what was read for a report.
type Source struct {
	Head       Head
	Omitted    []Omitted
	Comparison *Comparison
	Instances  []report.Instance
	Claims     []report.Claim
}
