package grant

import (
	"fmt"
	"strings"
)

// DriftMode is what reconcile does about drift of a live instance's objects of one kind.
type DriftMode string

// The modes. The zero value counts as DriftCorrect.
const (
	DriftCorrect DriftMode = "correct" // it is repaired, in a run that repairs
	DriftDetect  DriftMode = "detect"  // it is shown, and never repaired
	DriftIgnore  DriftMode = "ignore"  // it is neither shown nor repaired
)

// Modes has a mode for each kind of object. The kinds are fields, so that the loader refuses any other and a profile that extends
// another one replaces single ones.
type Modes struct {
	Policy   DriftMode `yaml:"policy"`
	PKIRole  DriftMode `yaml:"pki-role"`
	SSHRole  DriftMode `yaml:"ssh-role"`
	AuthRole DriftMode `yaml:"auth-role"`
	Generic  DriftMode `yaml:"generic"`
}

// KindMode is the mode of one kind.
type KindMode struct {
	Kind Kind
	Mode DriftMode
}

// String returns the words for a mode, for texts.
func (m KindMode) String() string { return string(m.Kind) + " " + string(m.Mode) }

// all returns the modes in the order of the kinds, as they are in the profile.
func (m Modes) all() []KindMode {
	return []KindMode{
		{KindPolicy, m.Policy}, {KindPKIRole, m.PKIRole}, {KindSSHRole, m.SSHRole}, {KindAuthRole, m.AuthRole}, {KindGeneric, m.Generic},
	}
}

// Of returns the mode of a kind.
func (m Modes) Of(kind Kind) DriftMode {
	for _, of := range m.all() {
		if of.Kind == kind && of.Mode != "" {
			return of.Mode
		}
	}
	return DriftCorrect
}

// Softer returns the modes that are not DriftCorrect.
func (m Modes) Softer() []KindMode {
	var out []KindMode
	for _, of := range m.all() {
		if m.Of(of.Kind) != DriftCorrect {
			out = append(out, of)
		}
	}
	return out
}

// check returns the faults of the modes.
func (m Modes) check() []error {
	var faults []error
	for _, of := range m.all() {
		switch of.Mode {
		case "", DriftCorrect, DriftDetect, DriftIgnore:
		default:
			faults = append(faults, fmt.Errorf("reconcile.%s: %q is none of %s", of.Kind, of.Mode,
				strings.Join([]string{string(DriftCorrect), string(DriftDetect), string(DriftIgnore)}, ", ")))
		}
	}
	return faults
}
