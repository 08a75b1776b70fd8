package reconcile

import (
	"strings"
	"testing"
)

// A role on OpenBao that was made without the fields which only OpenBao has is found, and its row shows what is missing.
func TestRole_WithoutOpenBaosLocksIsChanged(t *testing.T) {
	w := newWorld(t, 1)
	path := ""
	for at, role := range w.Objects {
		if strings.HasSuffix(at, "-kubelet") {
			role["allowed_ip_sans_cidr"], role["not_after_bound"] = []string{}, "permit"
			path = at
		}
	}
	a := w.run(w.reconciler(), Input{Mode: Detect})
	if len(a.Drift) != 1 || a.Drift[0].Path != path || a.Drift[0].Reason != Changed || strings.Join(a.Drift[0].Fields, " ") != "allowed_ip_sans_cidr not_after_bound" {
		t.Fatalf("want one row, of %s, got %+v", path, a.Drift)
	}
	for _, line := range []string{"- allowed_ip_sans_cidr: []\n+ allowed_ip_sans_cidr: [\"10.", `/32"]`, "- not_after_bound: \"permit\"\n+ not_after_bound: \"forbid\""} {
		if !strings.Contains(a.Drift[0].Diff, line) {
			t.Errorf("want the diff to say %q, got\n%s", line, a.Drift[0].Diff)
		}
	}
}
