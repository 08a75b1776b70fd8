package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// licencesFile is the file with the licences of all modules in the programs, which most of them require beside a binary.
const licencesFile = "THIRD-PARTY-LICENSES"

// thirdPartyLicences returns the licences and notices of all modules in the programs, and of Go. A module without one is an error.
func thirdPartyLicences(programs []program) ([]byte, error) {
	modules := map[string]bool{}
	for _, p := range programs {
		for _, m := range p.info.Deps {
			modules[used(m).Path+"@"+used(m).Version] = true
		}
	}
	// The modules are in the cache since they were built from it.
	out, err := exec.Command("go", append([]string{"mod", "download", "-json"}, slices.Sorted(maps.Keys(modules))...)...).Output() //nolint:noctx // ends with this program
	if err != nil {
		return nil, fmt.Errorf("go mod download: %w", err)
	}
	var text bytes.Buffer
	goroot, err := exec.Command("go", "env", "GOROOT").Output() //nolint:noctx // ends with this program
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	if err := addLicences(&text, "Go, "+programs[0].info.GoVersion, strings.TrimSpace(string(goroot))); err != nil {
		return nil, err
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct{ Path, Version, Dir string }
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return text.Bytes(), nil
		} else if err != nil {
			return nil, fmt.Errorf("go mod download: %w", err)
		}
		if err := addLicences(&text, m.Path+" "+m.Version, m.Dir); err != nil {
			return nil, err
		}
	}
}

func addLicences(text *bytes.Buffer, name, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	found := false
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		isLicence := strings.HasPrefix(upper, "LICENSE") || strings.HasPrefix(upper, "LICENCE") || strings.HasPrefix(upper, "COPYING")
		if e.IsDir() || (!isLicence && !strings.HasPrefix(upper, "NOTICE")) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(text, "==== %s: %s\n\n%s\n\n", name, e.Name(), bytes.TrimSpace(content))
		found = found || isLicence
	}
	if !found {
		return fmt.Errorf("%s: no licence in %s", name, dir)
	}
	return nil
}
