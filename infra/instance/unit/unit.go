// Package unit reads a systemd unit and runs commands under the rules that the kernel enforces for it, below a folder that
// replaces the root of an instance. Tests and the lab use it where no systemd runs.
//
// Sources of the rules: https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html and capabilities(7).
package unit

import (
	"fmt"
	"path"
	"strings"
)

// Unit is the settings of a unit: all values of each key, in the file's order. Sections are not kept apart, since no key that
// this package reads exists in two of them.
type Unit map[string][]string

// Parse returns the settings of a unit's text.
func Parse(text string) Unit {
	u := Unit{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if ok && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
			u[key] = append(u[key], strings.Fields(value)...)
		}
	}
	return u
}

// Value returns the last value of a key, or other if the unit has none.
func (u Unit) Value(key, other string) string {
	if values := u[key]; len(values) > 0 {
		return values[len(values)-1]
	}
	return other
}

// folders are the settings that make folders, with their place and whether ProtectSystem=strict leaves them writable.
// A configuration folder stays read-only: ReadWritePaths must name it too.
var folders = []struct { //nolint:gochecknoglobals // never changes
	setting, below string
	writable       bool
}{
	{"ConfigurationDirectory", "/etc", false},
	{"RuntimeDirectory", "/run", true},
	{"StateDirectory", "/var/lib", true},
}

// Command returns a command line that runs another one under the unit's rules, with root in place of the instance's root: it
// makes the unit's folders, mounts root read-only except for the writable paths in a mount namespace of its own, and limits the
// capabilities. It must run as root, on Linux, with unshare and setpriv of util-linux. It ends with another status than the
// command's if a rule cannot be met, as systemd does.
func (u Unit) Command(root string, command ...string) []string {
	var script strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&script, format+"\n", args...) }
	writable := []string{}
	for _, f := range folders {
		for _, name := range u[f.setting] {
			folder := path.Join(f.below, name)
			// systemd gives the mode to a folder that it makes, and leaves an existing configuration folder alone.
			line(`[ -d "$root%s" ] || { mkdir "$root%[1]s" && chmod %s "$root%[1]s"; }`, folder, u.Value(f.setting+"Mode", "0755"))
			if f.writable {
				writable = append(writable, folder)
			}
		}
	}
	writable = append(writable, u["ReadWritePaths"]...)
	if u.Value("ProtectSystem", "") == "strict" {
		line(`mount --bind "$root" "$root"`)
		for _, p := range writable {
			// A path with a minus is left out if it does not exist when the service starts, and is then read-only.
			if p, optional := strings.CutPrefix(p, "-"); optional {
				line(`[ ! -e "$root%s" ] || mount --bind "$root%[1]s" "$root%[1]s"`, p)
			} else {
				line(`mount --bind "$root%s" "$root%[1]s"`, p)
			}
		}
		line(`mount -o remount,bind,ro "$root"`)
	}
	line(`cd "$root"`) // after the mounts: a working folder stays on the mount where it was entered
	line("umask %s", u.Value("UMask", "0022"))
	privileges := []string{"setpriv"}
	if bounds := u["CapabilityBoundingSet"]; len(bounds) > 0 {
		privileges = append(privileges, "--bounding-set=-all,+"+strings.ToLower(strings.ReplaceAll(strings.Join(bounds, ",+"), "CAP_", "")))
	}
	if u.Value("NoNewPrivileges", "") == "true" {
		privileges = append(privileges, "--no-new-privs")
	}
	line(`exec %s -- "$@"`, strings.Join(privileges, " "))
	head := []string{"unshare", "--mount", "--propagation", "private", "--", "/bin/sh", "-ec", "root=$1; shift\n" + script.String(), "unit", root}
	return append(head, command...)
}
