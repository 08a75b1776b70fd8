package wiring

import (
	"slices"
	"testing"
)

func TestRoleNames_AreThoseOfAllFunctions(t *testing.T) {
	want := []string{"fleet-deprovision", "fleet-provision", "fleet-reconcile"}
	for _, loginRole := range []string{"fleet-reconcile", "fleet-deprovision", "fleet"} {
		if got := roleNames(loginRole); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", loginRole, got, want)
		}
	}
}
