package awsmodel

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Check returns what is wrong with a request of an operation, one text for each fault. body is the request's body as sent, in the
// protocol of the service: JSON, or a form.
func (m *Model) Check(operation string, body []byte) []string {
	o, ok := m.Operations[operation]
	if !ok {
		return []string{operation + ": the service has no such operation"}
	}
	c := checker{model: m}
	value, err := m.decode(o.Input, body)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", operation, err)}
	}
	c.check(operation, o.Input.Shape, value)
	return c.faults
}

type checker struct {
	model  *Model
	faults []string
}

func (c *checker) fault(at, format string, args ...any) {
	c.faults = append(c.faults, at+": "+fmt.Sprintf(format, args...))
}

// check compares a value with a shape.
func (c *checker) check(at, name string, value any) {
	s := c.model.Shapes[name]
	if s == nil {
		if value != nil && len(members(value)) > 0 {
			c.fault(at, "the operation takes no input, seen %v", value)
		}
		return
	}
	switch s.Type {
	case "structure":
		c.structure(at, s, value)
	case "list":
		all, ok := value.([]any)
		if !ok {
			c.fault(at, "want a list, seen %v", value)
			return
		}
		c.bounds(at, s, float64(len(all)), "entries")
		for n, entry := range all {
			c.check(fmt.Sprintf("%s[%d]", at, n), s.Member.Shape, entry)
		}
	case "map":
		all, ok := value.(map[string]any)
		if !ok {
			c.fault(at, "want a map, seen %v", value)
			return
		}
		c.bounds(at, s, float64(len(all)), "entries")
		for _, key := range slices.Sorted(maps.Keys(all)) {
			c.check(at+" key", s.Key.Shape, key)
			c.check(at+"."+key, s.Value.Shape, all[key])
		}
	default:
		c.scalar(at, s, value)
	}
}

func members(value any) map[string]any {
	m, _ := value.(map[string]any)
	return m
}

func (c *checker) structure(at string, s *shape, value any) {
	all, ok := value.(map[string]any)
	if !ok {
		c.fault(at, "want a structure, seen %v", value)
		return
	}
	for _, name := range s.Required {
		if all[name] == nil {
			c.fault(at, "%s is required", name)
		}
	}
	if s.Union && len(all) != 1 {
		c.fault(at, "want one of its members, seen %d", len(all))
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		ref, known := s.Members[name]
		if !known {
			c.fault(at, "there is no member %s", name)
			continue
		}
		c.check(at+"."+name, ref.Shape, all[name])
	}
}

func (c *checker) scalar(at string, s *shape, value any) {
	switch s.Type {
	case "string":
		text, ok := value.(string)
		if !ok {
			c.fault(at, "want a string, seen %v", value)
			return
		}
		c.bounds(at, s, float64(utf8.RuneCountInString(text)), "characters")
		if len(s.Enum) > 0 && !slices.Contains(s.Enum, text) {
			c.fault(at, "want one of %q, seen %q", s.Enum, text)
		}
		if s.Pattern != "" && !pattern(s.Pattern).MatchString(text) {
			c.fault(at, "%q does not match the pattern %s", text, s.Pattern)
		}
	case "blob":
		text, ok := value.(string)
		content, err := base64.StdEncoding.DecodeString(text)
		if !ok || err != nil {
			c.fault(at, "want text in base64, seen %v", value)
			return
		}
		c.bounds(at, s, float64(len(content)), "bytes")
	case "integer", "long", "float", "double":
		number, ok := value.(json.Number)
		n, err := number.Float64()
		isWhole := s.Type == "float" || s.Type == "double" || !strings.ContainsAny(number.String(), ".eE")
		if !ok || err != nil || !isWhole {
			c.fault(at, "want a number of type %s, seen %v", s.Type, value)
			return
		}
		c.bounds(at, s, n, "")
	case "boolean":
		if _, ok := value.(bool); !ok {
			c.fault(at, "want a boolean, seen %v", value)
		}
	case "timestamp":
		_, isNumber := value.(json.Number)
		if _, isText := value.(string); !isNumber && !isText {
			c.fault(at, "want a time, seen %v", value)
		}
	default:
		c.fault(at, "a shape of type %q is not known here", s.Type)
	}
}

func (c *checker) bounds(at string, s *shape, n float64, unit string) {
	if s.Min != nil && n < *s.Min {
		c.fault(at, "want at least %v %s, seen %v", *s.Min, unit, n)
	}
	if s.Max != nil && n > *s.Max {
		c.fault(at, "want at most %v %s, seen %v", *s.Max, unit, n)
	}
}

// unicodeEscape is Java's form of a character by its number, in AWS's patterns.
var unicodeEscape = regexp.MustCompile(`\\u([0-9a-fA-F]{4})`)

// beyond16Bits are the characters that Java writes as two.
const beyond16Bits = `\uD800\uDC00-\uDBFF\uDFFF`

// pattern returns a pattern of a model in Go's form. The whole value must match, as AWS's validation errors say. It panics for one that
// Go cannot express: the models are pinned, and a pattern that is passed over would check nothing.
func pattern(java string) *regexp.Regexp {
	java = strings.ReplaceAll(java, beyond16Bits, `\x{10000}-\x{10FFFF}`)
	return regexp.MustCompile(`^(?:` + unicodeEscape.ReplaceAllString(java, `\x{$1}`) + `)$`)
}
