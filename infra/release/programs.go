package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// program is a built function or command.
type program struct {
	// name is unique, as in "provision arm64".
	name string
	// what is the function's name, or that of the command.
	what string
	// target is Lambda's name of the processor, or the command's system and processor.
	target   string
	isLambda bool
	content  []byte
	info     *buildinfo.BuildInfo
}

// builtPrograms reads the programs of a stage, in the order of their names.
func builtPrograms(stage string) ([]program, error) {
	var all []program
	for pattern, isLambda := range map[string]bool{"lambda/*/*/bootstrap": true, "command/*/*": false} {
		paths, err := filepath.Glob(filepath.Join(stage, pattern))
		if err != nil {
			return nil, err
		}
		if len(paths) == 0 {
			return nil, fmt.Errorf("%s has no %s", stage, pattern)
		}
		for _, path := range paths {
			p := program{isLambda: isLambda, what: filepath.Base(path), target: filepath.Base(filepath.Dir(path))}
			if isLambda {
				p.what, p.target = p.target, filepath.Base(filepath.Dir(filepath.Dir(path)))
			}
			p.name = p.what + " " + p.target
			if p.content, err = os.ReadFile(path); err != nil {
				return nil, err
			}
			if p.info, err = buildinfo.Read(bytes.NewReader(p.content)); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b program) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	for _, p := range all {
		if p.info.GoVersion != all[0].info.GoVersion {
			return nil, fmt.Errorf("%s is built with %s, %s with %s", p.name, p.info.GoVersion, all[0].name, all[0].info.GoVersion)
		}
	}
	return all, nil
}

func sum(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}
