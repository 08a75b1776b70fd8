package grant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is the kind of an object in Vault, in the form of the ledger and of reconcile's answers.
type Kind string

// The kinds of objects that this program makes.
const (
	KindPolicy   Kind = "policy"
	KindPKIRole  Kind = "pki-role"
	KindSSHRole  Kind = "ssh-role"
	KindGeneric  Kind = "generic"
	KindAuthRole Kind = "auth-role"
)

// signs reports whether objects of the kind are roles of an engine that signs names.
func (k Kind) signs() bool { return k == KindPKIRole || k == KindSSHRole }

// Object is one object as Vault should have it.
type Object struct {
	Kind Kind
	Path string
	// Fields are all fields that this program sets: strings, bools, int64 (durations in seconds) and []string. A generic
	// object can have any JSON value.
	Fields map[string]any
	// Optional are fields that only some servers have. SHA256 leaves them out, so that a record does not depend on the server.
	Optional map[string]any
	// Retain reports whether the object stays in Vault when the instance's grant is removed. SHA256 leaves it out.
	Retain bool
}

// FieldsFor returns the fields to write and to compare: Fields, and the optional ones that the server has. got is the server's
// answer for o's path, nil if there is none; a server answers every field of an object that it has.
func (o Object) FieldsFor(got map[string]any) map[string]any {
	fields := o.Fields
	for name, value := range o.Optional {
		if _, has := got[name]; !has {
			continue
		}
		if len(fields) == len(o.Fields) {
			fields = maps.Clone(fields)
		}
		fields[name] = value
	}
	return fields
}

// SHA256 returns the hex digest of the fields. Equal digests mean equal writes: the digest is over the fields in the order of
// their names, each with its type and length, so that no two sets of fields have the same text.
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
		// Fields have JSON values only.
		panic(fmt.Sprintf("a value of type %T has no JSON form: %v", value, err))
	}
	return appendText(append(to, 'j'), string(text))
}

// Differences returns the names of the fields of o that differ in got, Vault's answer for o's path, sorted. It compares both in
// one form: durations in seconds, comma strings as lists, lists sorted, a policy as its marker and rules without layout. It
// ignores fields that o does not have, and optional ones that the server does not have.
func (o Object) Differences(got map[string]any) []string {
	var fields []string
	for name, want := range o.FieldsFor(got) {
		if o.Kind == KindPKIRole && vaultChooses(name, want, got[name]) {
			continue
		}
		if o.Kind == KindPolicy && name == "policy" && samePolicy(want, got[name]) {
			continue
		}
		// A server that does not know a field of an SSH role drops it without a word, and may sign more than a role without it should.
		_, isKnown := got[name]
		if !equal(want, got[name]) || (o.Kind == KindSSHRole && !isKnown) {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields
}

// equal reports whether Vault's answer for a field has the wanted value. A missing answer equals false and the empty string.
func equal(want, got any) bool {
	switch want := want.(type) {
	case int64:
		seconds, ok := asSeconds(got)
		return ok && seconds == want
	case []string:
		return identical(want, got) || slices.Equal(asList(want), asList(got))
	case bool:
		b, ok := got.(bool)
		return (ok && b == want) || (got == nil && !want)
	case string:
		if s, ok := got.(string); ok {
			return strings.TrimSpace(s) == strings.TrimSpace(want)
		}
		return (got == nil && want == "") || equalJSON(want, got)
	default:
		return equalJSON(want, got)
	}
}

// identical reports whether Vault's list has the wanted elements in the same order, which saves sorting both.
func identical(want []string, got any) bool {
	list, ok := got.([]any)
	return ok && slices.EqualFunc(want, list, func(w string, g any) bool { s, isText := g.(string); return isText && s == w })
}

// SecondsOf returns a duration that Vault answered in one of its forms, or 0 for any other value.
func SecondsOf(v any) time.Duration {
	seconds, _ := asSeconds(v)
	return time.Duration(seconds) * time.Second
}

// asSeconds returns the seconds of a duration that Vault answered: a number, or a string such as "1h" or "3600". Nil is 0.
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

// asList returns a list or a comma string as a sorted list. A network of one address becomes that address, since Vault prints
// it so.
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

// equalJSON reports whether Vault's answer has a template's JSON value. Vault answers many strings in another type than they were
// written in: "1h" as 3600, "a,b" as a list.
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
