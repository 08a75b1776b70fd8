package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

func TestKind_SurvivesWrapping(t *testing.T) {
	plain := errors.New("plain")
	for name, row := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"an unmarked error is retried":                     {plain, fault.Retry},
		"a refusal stays one when wrapped":                 {fmt.Errorf("doing: %w", fault.Refusef("no")), fault.Refuse},
		"a conflict stays one when wrapped twice":          {fmt.Errorf("a: %w", fmt.Errorf("b: %w", fault.Conflictf("no"))), fault.Conflict},
		"the outer mark wins over the inner":               {fault.New(fault.Retry, fault.Refusef("no")), fault.Retry},
		"retry wins among joined errors":                   {errors.Join(fault.Refusef("no"), plain), fault.Retry},
		"joined refusals are a refusal":                    {errors.Join(fault.Refusef("a"), fault.Refusef("b")), fault.Refuse},
		"a conflict among refusals is a conflict":          {errors.Join(fault.Refusef("a"), fault.Conflictf("b")), fault.Conflict},
		"a join inside a wrap is unwrapped":                {fmt.Errorf("x: %w", errors.Join(fault.Refusef("a"))), fault.Refuse},
		"two errors wrapped by one format count as joined": {fmt.Errorf("%w and %w", fault.Refusef("a"), plain), fault.Retry},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fault.KindOf(row.err); got != row.want {
				t.Errorf("kind of %q is %s, want %s", row.err, got, row.want)
			}
		})
	}
	if fault.New(fault.Refuse, nil) != nil {
		t.Error("marking nil returned an error")
	}
}
