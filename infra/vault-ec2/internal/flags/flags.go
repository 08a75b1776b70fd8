// Package flags has the forms of the command's flags: the outputs, key=value, and the flags of earlier versions with one dash.
package flags

import (
	"fmt"
	"strings"
)

// Kind says how a flag is written.
type Kind int

// The kinds of a flag.
const (
	Unknown   Kind = iota // not a flag of the command
	Alone                 // without a value, or with one behind an equals sign
	WithValue             // the next argument is its value, unless one stands behind an equals sign
)

// SecondDash returns args with a second dash before each known flag that has one, such as -mode and -mode=detect: earlier commands had flags
// of one dash. Short flags, values, and everything behind -- stay as they are.
func SecondDash(args []string, kind func(name string) Kind) []string {
	out := make([]string, 0, len(args))
	isValue := false
	for i, arg := range args {
		if arg == "--" && !isValue {
			return append(out, args[i:]...)
		}
		name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		isFlag := !isValue && strings.HasPrefix(arg, "-") && len(name) > 1
		of := Unknown
		if isFlag {
			of = kind(name)
		}
		if of != Unknown && !strings.HasPrefix(arg, "--") {
			arg = "-" + arg
		}
		isValue = of == WithValue && !hasValue
		out = append(out, arg)
	}
	return out
}

// Pairs returns a function that reads key=value into a map, for a flag that can be repeated.
func Pairs(into map[string]string) func(string) error {
	return func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" || value == "" {
			return fmt.Errorf("want key=value, got %q", s)
		}
		into[key] = value
		return nil
	}
}

// Format is the form of a command's output: a flag's value.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
)

// String returns the flag's value.
func (f *Format) String() string { return string(*f) }

// Type returns the name of the value in the command's help.
func (f *Format) Type() string { return "table|json" }

// Set reads the flag's value. Another one is an error.
func (f *Format) Set(s string) error {
	as := Format(s)
	if as != Table && as != JSON {
		return fmt.Errorf("want %s or %s, got %q", Table, JSON, s)
	}
	*f = as
	return nil
}
