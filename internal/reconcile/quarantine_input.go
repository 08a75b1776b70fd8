package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// These bound the instances of an order, and its texts in bytes.
const (
	maxOrdered = 50
	maxReason  = 300
	maxBy      = 600
)

// checkOrder returns an error for an input that mode quarantine or release does not accept.
func checkOrder(in Input) error {
	isAbout := in.Profile != "" || in.Force || in.Confirm != "" || in.NamesOnly || in.Gone != nil || len(in.Profiles) > 0 || in.Cursor != nil
	switch {
	case isAbout:
		return fmt.Errorf("mode %s is about single instances: leave profile, force, confirm, namesOnly, gone, profiles and cursor out", in.Mode)
	case len(in.InstanceIDs) == 0 || len(in.InstanceIDs) > maxOrdered:
		return fmt.Errorf("mode %s needs 1 to %d instanceIds: it never means the whole fleet", in.Mode, maxOrdered)
	case in.Mode == Quarantine && in.Reason == "":
		return fmt.Errorf("mode %s needs a reason", in.Mode)
	case in.By == "":
		return fmt.Errorf("mode %s needs by, the name of the person who orders it", in.Mode)
	}
	for _, id := range in.InstanceIDs {
		if !facts.IsInstanceID(id) {
			return fmt.Errorf("instanceIds: %+q is not the ID of an EC2 instance", id)
		}
	}
	if unique := slices.Compact(slices.Sorted(slices.Values(in.InstanceIDs))); len(unique) != len(in.InstanceIDs) {
		return errors.New("instanceIds names an instance twice")
	}
	return cmp.Or(checkPlace(in), checkLine("reason", in.Reason, maxReason), checkLine("by", in.By, maxBy))
}

// checkLine returns an error for a text that is too long, or that is not one line of printable characters: it is shown to operators and
// in logs.
func checkLine(field, text string, limit int) error {
	isOther := func(c rune) bool { return c == utf8.RuneError || !unicode.IsPrint(c) }
	switch {
	case len(text) > limit:
		return fmt.Errorf("%s has %d bytes, and at most %d are stored", field, len(text), limit)
	case slices.ContainsFunc([]rune(text), isOther):
		return fmt.Errorf("%s has a character that is not printable: write one line of text", field)
	}
	return nil
}
