package grant_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// An author must see the faults of all profiles at once, of those too that still load in a deployment.
func TestCheck_ReportsEveryProfilesFaults(t *testing.T) {
	fs := filesWith(
		second(strings.Replace(masterProfile, "token_ttl: 1h, ", "", 1)),
		replace("worker/kubelet.json.tmpl", `"24h"`, `"8761h"`),
		text("third/profile.yaml", "nme: x\n"),
	)
	n, faults, err := grant.Check(fs, grant.DefaultRules())
	if err != nil || n != 3 {
		t.Fatalf("want three profiles checked, got %d, %v", n, err)
	}
	want := map[string][2]string{
		"master/profile.yaml": {"alice_cluster-master", "auth.token_ttl"},
		"worker/profile.yaml": {"alice_cluster-worker", "MAX_CERTIFICATE_TTL"},
		"third/profile.yaml":  {"", "nme"},
	}
	for _, f := range faults {
		if w, is := want[f.File]; !is || f.Profile != w[0] || !strings.Contains(f.Err.Error(), w[1]) {
			t.Errorf("want %q, got %+v", w, f)
		}
		delete(want, f.File)
	}
	if len(want) > 0 {
		t.Errorf("no fault of %v", want)
	}
	if _, err := grant.Load(fs); err == nil || strings.Count(err.Error(), "\n") < 2 {
		t.Errorf("want the faults of all three in the error of Load too, got %v", err)
	}
	if n, faults, err := grant.Check(files(), grant.DefaultRules()); n != 1 || len(faults) > 0 || err != nil {
		t.Errorf("want no fault in the baseline, got %d, %v, %v", n, faults, err)
	}
	if _, _, err := grant.Check(fstest.MapFS{}, grant.DefaultRules()); err == nil {
		t.Error("want an error where no profile is: nothing was checked")
	}
}
