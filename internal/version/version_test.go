package version

import (
	"runtime/debug"
	"testing"
)

func TestVersion_IsTheReleaseOrTheModules(t *testing.T) {
	installed := &debug.BuildInfo{Main: debug.Module{Version: "v1.1.0"}}
	for name, row := range map[string]struct {
		release string
		built   *debug.BuildInfo
		want    string
	}{
		"a release":               {"v1.2.3", installed, "v1.2.3"},
		"go install":              {"", installed, "v1.1.0"},
		"no version":              {"", &debug.BuildInfo{}, "(devel)"},
		"no information":          {"", nil, "(devel)"},
		"a release and no module": {"v1.2.3", nil, "v1.2.3"},
	} {
		if got := of(row.release, row.built); got != row.want {
			t.Errorf("%s: want %s, got %s", name, row.want, got)
		}
	}
	if Version() == "" {
		t.Error("want a version of every build")
	}
}

func TestUserAgent_IsAProductWithoutComment(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "v1.2.3", "(devel)": "devel", "v0.0.0-20261126200000-0123456789ab+dirty": "v0.0.0-20261126200000-0123456789ab+dirty",
	} {
		if got := productOf(version); got != want {
			t.Errorf("%s: want %s, got %s", version, want, got)
		}
	}
	if got := UserAgent("program"); got != "program/"+Product() {
		t.Errorf("want the program's name in front of its version, got %s", got)
	}
}
