package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const (
	module     = "github.com/vault-ec2-provisioner/vault-ec2-provisioner"
	repository = "https://" + module
)

// sbom writes the modules of all programs, and which program has which, as CycloneDX.
// https://cyclonedx.org/docs/1.6/json/
func (r *release) sbom() error {
	type object = map[string]any
	hashes := func(digest string) []object { return []object{{"alg": "SHA-256", "content": digest}} }
	library := func(path, version string) object {
		return object{"type": "library", "bom-ref": packageURL(path, version), "purl": packageURL(path, version), "name": path, "version": version}
	}
	libraries := map[string]object{}
	var programs, dependencies []object
	for _, p := range r.programs {
		std := library("std", p.info.GoVersion)
		needs := []string{packageURL("std", p.info.GoVersion)}
		libraries[needs[0]] = std
		for _, m := range p.info.Deps {
			m = used(m)
			one := library(m.Path, m.Version)
			digest, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:"))
			if err != nil || m.Sum == "" {
				return fmt.Errorf("%s: module %s has the checksum %q", p.name, m.Path, m.Sum)
			}
			one["hashes"] = hashes(hex.EncodeToString(digest)) // as in go.sum
			libraries[packageURL(m.Path, m.Version)] = one
			needs = append(needs, packageURL(m.Path, m.Version))
		}
		slices.Sort(needs)
		programs = append(programs, object{"type": "application", "bom-ref": p.name, "name": p.name, "version": "v" + r.version, "hashes": hashes(sum(p.content))})
		dependencies = append(dependencies, object{"ref": p.name, "dependsOn": needs})
	}
	var sorted []object
	for _, purl := range slices.Sorted(maps.Keys(libraries)) {
		sorted = append(sorted, libraries[purl])
	}
	return r.writeJSON("sbom.cdx.json", object{
		"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata": object{
			"timestamp": r.time.Format(time.RFC3339),
			"component": object{
				"type": "application", "bom-ref": packageURL(module, "v"+r.version), "purl": packageURL(module, "v"+r.version), "name": module, "version": "v" + r.version,
				"licenses": []object{{"license": object{"id": "Apache-2.0"}}}, "components": programs,
			},
		},
		"components": sorted, "dependencies": dependencies,
	})
}

// used returns a module, or the one that replaces it.
func used(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

// packageURL returns the package URL of a module.
// https://github.com/package-url/purl-spec/blob/main/types-doc/golang-definition.md
func packageURL(path, version string) string {
	return "pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// provenance writes from which commit, with which Go and flags the files before it are built. It names no machine and no time of its
// own, so that everyone who builds the release gets the same bytes. It is not signed.
// https://slsa.dev/spec/v1.0/provenance
func (r *release) provenance() error {
	type object = map[string]any
	var subjects []object
	for _, f := range r.files {
		subjects = append(subjects, object{"name": f.name, "digest": object{"sha256": f.sha256}})
	}
	definition := object{
		"buildType":          repository + "/blob/main/CONTRIBUTING.md#ci-and-releases",
		"externalParameters": object{"target": "package", "version": "v" + r.version},
		"internalParameters": object{"go": r.programs[0].info.GoVersion, "flags": r.flags, "sourceDateEpoch": r.time.Unix()},
	}
	if r.commit != "" {
		definition["resolvedDependencies"] = []object{{"uri": "git+" + repository, "digest": object{"gitCommit": r.commit}}}
	}
	return r.writeJSON("provenance.json", object{
		"_type": "https://in-toto.io/Statement/v1", "subject": subjects,
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": object{
			"buildDefinition": definition,
			"runDetails":      object{"builder": object{"id": repository + "/blob/main/Makefile"}},
		},
	})
}

// checksums writes the checksums of all files, in the form of sha256sum.
func (r *release) checksums() error {
	var text strings.Builder
	for _, f := range r.files {
		fmt.Fprintf(&text, "%s  %s\n", f.sha256, f.name)
	}
	return r.write("SHA256SUMS", []byte(text.String()))
}

func (r *release) writeJSON(name string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return r.write(name, append(content, '\n'))
}
