package grant

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decode reads a profile's file into p, with the base that it extends. It returns the texts of the files, the profile's own first. A base is a profile
// in a folder beside it that extends nothing, so that a reader looks at two files at most. All but its name, match and abstract carries
// over. What the profile's file has replaces it: a value or a list as a whole, an output by its name. With an error, p has as much as
// could be read.
func (p *Profile) decode(fsys fs.FS, file string) (texts []string, err error) {
	own, err := readProfile(fsys, file, p)
	if err != nil || p.Extends == "" {
		return []string{own}, err
	}
	if p.Abstract {
		return nil, fmt.Errorf("extends: an abstract profile is a base and extends nothing: leave out extends %q", p.Extends)
	}
	name := path.Join(p.Extends, "profile.yaml")
	if strings.Count(name, "/") != 1 || !fs.ValidPath(name) || name == file {
		return nil, fmt.Errorf("extends: %q is not the name of another folder beside this one", p.Extends)
	}
	base := &Profile{}
	text, err := readProfile(fsys, name, base)
	if err != nil {
		return nil, fmt.Errorf("extends: %s: %w", name, err)
	}
	if base.Extends != "" {
		return nil, fmt.Errorf("extends: %s extends %s itself: extend a profile that extends nothing", name, base.Extends)
	}
	inherited := base.Outputs
	for i := range inherited {
		inherited[i].source = path.Dir(name)
	}
	// Decoding into the base's values replaces what the file has and leaves the rest.
	merged := *base
	merged.Name, merged.Match, merged.Abstract, merged.Outputs = "", Match{}, false, nil
	merged.file, merged.rules, merged.accessed = p.file, p.rules, p.accessed
	if _, err := readProfile(fsys, file, &merged); err != nil {
		return nil, err
	}
	merged.Outputs = overlaid(inherited, merged.Outputs)
	*p = merged
	return []string{own, text}, nil
}

// overlaid returns the outputs of a base with those of a profile: the first of a name in the place of the base's, the others after all.
func overlaid(base, own []Output) []Output {
	all, more := slices.Clone(base), slices.Clone(own)
	for i, b := range base {
		if at := slices.IndexFunc(more, func(o Output) bool { return o.Name == b.Name }); at >= 0 {
			all[i] = more[at]
			more = slices.Delete(more, at, at+1)
		}
	}
	return append(all, more...)
}

// readProfile decodes one file into p and returns its text.
func readProfile(fsys fs.FS, file string, p *Profile) (string, error) {
	text, err := fs.ReadFile(fsys, file)
	if err != nil {
		return "", fmt.Errorf("reading the profile: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(p); err != nil {
		return "", fmt.Errorf("decoding the profile: %w", err)
	}
	if err := d.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return "", errors.New("decoding the profile: a second document follows the first")
	}
	return string(text), nil
}

// checkAbstract returns the faults of an abstract profile that no profile shows: those of its templates and rules appear where it is
// extended.
func (p *Profile) checkAbstract(isExtended bool) error {
	switch {
	case !isExtended:
		return errors.New("abstract: no profile extends it")
	case p.Name != "":
		return fmt.Errorf("abstract: it is no profile, so it has no name: leave out %q", p.Name)
	case len(p.Match.IAMRoleARN)+len(p.Match.IAMInstanceProfileARN) > 0:
		return errors.New("abstract: no instance matches it: leave out match")
	}
	return nil
}
