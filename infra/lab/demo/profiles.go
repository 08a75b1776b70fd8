package demo

import (
	"embed"
	"io/fs"
)

//go:embed profiles
var profiles embed.FS

// Profiles returns the demo's own profiles, which the world needs besides the built-in ones.
func Profiles() (fs.FS, error) { return fs.Sub(profiles, "profiles") }
