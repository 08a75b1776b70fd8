package lint

import (
	"errors"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Finding is one fault, as one object of the list that a pipeline reads.
type Finding struct {
	Profile string `json:"profile,omitempty"` // empty where the file does not say it, and for a fault of several profiles
	File    string `json:"file,omitempty"`    // with the folder that was checked; empty for a fault of several profiles
	Line    int    `json:"line,omitempty"`    // 0 where it is unknown
	Message string `json:"message"`
}

// findingsOf returns a finding for each error of the faults. names returns the names of the files beside a profile.
func findingsOf(faults []grant.Fault, folder string, names func(dir string) []string) []Finding {
	all := []Finding{}
	for _, f := range faults {
		dir := path.Dir(f.File)
		for _, message := range leaves(f.Err) {
			found := Finding{Profile: f.Profile, Message: message}
			if f.File != "" {
				name, line := place(message, dir, names)
				found.File, found.Line = path.Join(folder, dir, name), line
			}
			if !slices.Contains(all, found) { // a policy that is rendered in several ways breaks one rule several times
				all = append(all, found)
			}
		}
	}
	return all
}

// leaves returns the messages of the errors that err joins, each with the text that wraps the join around it.
func leaves(err error) []string {
	if types, is := err.(*yaml.TypeError); is { //nolint:errorlint // the error itself is asked, and then the one that it wraps
		return types.Errors
	}
	if many, is := err.(interface{ Unwrap() []error }); is {
		var parts, texts []string
		for _, e := range many.Unwrap() {
			parts, texts = append(parts, leaves(e)...), append(texts, e.Error())
		}
		if err.Error() == strings.Join(texts, "\n") {
			return parts
		}
		return []string{err.Error()} // a text with several errors in it is one message
	}
	inner := errors.Unwrap(err)
	if inner == nil {
		return []string{err.Error()}
	}
	prefix, is := strings.CutSuffix(err.Error(), inner.Error())
	if !is {
		return []string{err.Error()}
	}
	return prefixed(prefix, leaves(inner))
}

func prefixed(prefix string, texts []string) []string {
	out := make([]string, len(texts))
	for i, s := range texts {
		out[i] = prefix + s
	}
	return out
}

// inFile finds a file's name and a line, as in worker/policy.hcl.tmpl:3:14. inYAML finds the line of a profile that cannot be decoded.
var (
	inFile = regexp.MustCompile(`([^\s:"(]+):(\d*)`)
	inYAML = regexp.MustCompile(`^decoding the profile: .*?\bline (\d+):`)
)

// place returns the file that a message is about, from the profile's folder, and the line if the message has one: a template beside the
// profile, or one of its base's, or the profile itself.
func place(message, dir string, names func(dir string) []string) (name string, line int) {
	name = "profile.yaml"
	if found := inYAML.FindStringSubmatch(message); found != nil {
		line, _ = strconv.Atoi(found[1])
		return name, line
	}
	for _, found := range inFile.FindAllStringSubmatch(message, -1) {
		folder, file := path.Split(found[1])
		folder = path.Clean(folder)
		if strings.Contains(folder, "/") || strings.HasPrefix(folder, "..") {
			continue // no profile's folder
		}
		if folder == "." {
			folder = dir
		}
		if !slices.Contains(names(folder), file) {
			continue
		}
		if name = file; folder != dir {
			name = path.Join("..", folder, file)
		}
		if line, _ = strconv.Atoi(found[2]); line > 0 {
			break
		}
	}
	return name, line
}
