// Package version returns the version of the program.
package version

import "runtime/debug"

// release is the version of a release. The linker sets it: -ldflags "-X <this package>.release=v1.2.3".
var release string //nolint:gochecknoglobals // the linker can set nothing else, and the program never does

// Version returns the release's version; in a build that is no release the version of the module, as "go install" records it; and (devel)
// where neither is known.
func Version() string {
	built, _ := debug.ReadBuildInfo()
	return of(release, built)
}

func of(release string, built *debug.BuildInfo) string {
	switch {
	case release != "":
		return release
	case built != nil && built.Main.Version != "":
		return built.Main.Version
	}
	return "(devel)"
}
