// Package templates holds the profiles that are built into the functions; TEMPLATES_DIR replaces them.
package templates

import "embed"

// FS holds one folder for each profile: profile.yaml and the templates it names.
//
//go:embed */profile.yaml */*.tmpl
var FS embed.FS
