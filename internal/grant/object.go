package grant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is the kind of an object in Vault, as it stands in the ledger and in reconcile's answers.
type Kind string

// The kinds of objects this program makes.
const (
	KindPolicy   Kind = "policy"
	KindPKIRole  Kind = "pki-role"
	KindGeneric  Kind = "generic"
	KindAuthRole Kind = "auth-role"
)

// Object is one object as Vault should hold it: every field this program sets, in the types Vault answers with.
// Fields holds strings, bools, int64 (durations in seconds) and []string; a generic object any JSON value.
type Object struct {
	Kind   Kind
	Path   string
	Fields map[string]any
}

// SHA256 is the hex digest of what is written: equal digests mean the same write. It is taken over the fields in the
// order of their names, each with its kind and its length, so that no two sets of fields read alike.
func (o Object) SHA256() string {
	names := make([]string, 0, len(o.Fields))
	for name := range o.Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	text := make([]byte, 0, 4096)
	for _, name := range names {
		text = appendValue(appendText(text, name), o.Fields[name])
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func appendText(to []byte, s string) []byte {
	return append(append(strconv.AppendInt(to, int64(len(s)), 10), ':'), s...)
}

func appendValue(to []byte, value any) []byte {
	switch value := value.(type) {
	case string:
		return appendText(append(to, 's'), value)
	case bool:
		return strconv.AppendBool(append(to, 'b'), value)
	case int64:
		return append(strconv.AppendInt(append(to, 'i'), value, 10), ';')
	case []string:
		to = append(strconv.AppendInt(append(to, 'l'), int64(len(value)), 10), ';')
		for _, s := range value {
			to = appendText(to, s)
		}
		return to
	}
	text, err := json.Marshal(value) // map keys are sorted
	if err != nil {
		// Fields are built from JSON values only.
		panic(fmt.Sprintf("a value of type %T cannot be written as JSON: %v", value, err))
	}
	return appendText(append(to, 'j'), string(text))
}

// Differences are the names, sorted, of those of o's fields that differ in got, which is what Vault answers for
// o's path. Both sides are brought to one form first: durations to seconds, comma strings to lists, lists sorted, a
// policy to its marker and its rules, whatever their layout.
// Fields that only Vault knows are not looked at.
func (o Object) Differences(got map[string]any) []string {
	var fields []string
	for name, want := range o.Fields {
		if o.Kind == KindPKIRole && leftToVault(name, want) {
			continue
		}
		if o.Kind == KindPolicy && name == "policy" && samePolicy(want, got[name]) {
			continue
		}
		if !equal(want, got[name]) {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields
}

func equal(want, got any) bool {
	switch want := want.(type) {
	case int64:
		seconds, ok := asSeconds(got)
		return ok && seconds == want
	case []string:
		return identical(want, got) || slices.Equal(asList(want), asList(got))
	case bool:
		b, ok := got.(bool)
		return ok && b == want || got == nil && !want
	case string:
		s, ok := got.(string)
		return ok && strings.TrimSpace(s) == strings.TrimSpace(want) || got == nil && want == "" || !ok && equalJSON(want, got)
	default:
		return equalJSON(want, got)
	}
}

// identical tells whether Vault's list is the wanted one as it stands, which saves sorting both.
func identical(want []string, got any) bool {
	list, ok := got.([]any)
	return ok && slices.EqualFunc(want, list, func(w string, g any) bool { s, isText := g.(string); return isText && s == w })
}

// SecondsOf returns a duration as Vault answers it; 0 for what is none.
func SecondsOf(v any) time.Duration {
	seconds, _ := asSeconds(v)
	return time.Duration(seconds) * time.Second
}

// asSeconds takes what Vault answers for a duration: a number, or a string such as "1h" or "3600".
func asSeconds(v any) (int64, bool) {
	switch v := v.(type) {
	case nil:
		return 0, true
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case float64:
		return int64(v), v == float64(int64(v))
	case int64:
		return v, true
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n, true
		}
		d, err := time.ParseDuration(v)
		return int64(d / time.Second), err == nil
	}
	return 0, false
}

// asList brings a list or a comma string to a sorted list; a network of one address becomes that address, since
// Vault prints it so.
func asList(v any) []string {
	var out []string
	switch v := v.(type) {
	case []string:
		out = slices.Clone(v)
	case []any:
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
	case string:
		if v != "" {
			out = strings.Split(v, ",")
		}
	}
	for i, e := range out {
		if p, err := netip.ParsePrefix(strings.TrimSpace(e)); err == nil && p.IsSingleIP() {
			out[i] = p.Addr().String()
		}
	}
	slices.Sort(out)
	return out
}

// equalJSON compares a template's JSON value with Vault's answer for it. Vault answers many strings in another
// type than they were written in: "1h" as 3600, "a,b" as a list.
func equalJSON(want, got any) bool {
	if l, isList := got.([]any); isList {
		if wl, ok := want.([]any); ok && len(wl) != len(l) {
			return false
		}
		return slices.Equal(asList(want), asList(l))
	}
	if ws, ok := asSeconds(want); ok && want != nil {
		gs, ok := asSeconds(got)
		return ok && ws == gs
	}
	w, errW := json.Marshal(want)
	g, errG := json.Marshal(got)
	return errW == nil && errG == nil && string(w) == string(g)
}
