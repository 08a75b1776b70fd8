// Package version returns the version of the program.
package version

import (
	"runtime/debug"
	"strings"
	"sync"
)

// release is the version of a release. The linker sets it: -ldflags "-X <this package>.release=v1.2.3".
var release string //nolint:gochecknoglobals // the linker can set nothing else, and the program never does

// Version returns the release's version; in a build that is no release the version of the module, as "go install" records it; and (devel)
// where neither is known.
func Version() string { return version() }

// version reads the build's information once: each read parses all of it, and each record of the ledger names the version.
var version = sync.OnceValue(func() string {
	built, _ := debug.ReadBuildInfo()
	return of(release, built)
})

func of(release string, built *debug.BuildInfo) string {
	switch {
	case release != "":
		return release
	case built != nil && built.Main.Version != "":
		return built.Main.Version
	}
	return "(devel)"
}

// UserAgent returns a program's name with the version, as a product of the HTTP header User-Agent.
func UserAgent(program string) string { return program + "/" + Product() }

// Product returns the version as the header User-Agent takes it: without parentheses, which are comments there.
// https://www.rfc-editor.org/rfc/rfc9110#field.user-agent
func Product() string { return productOf(Version()) }

func productOf(version string) string { return strings.Trim(version, "()") }
