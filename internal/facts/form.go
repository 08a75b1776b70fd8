package facts

import (
	"fmt"
	"regexp"
)

// Form is a closed form. It is safe for concurrent use.
type Form struct {
	pattern *regexp.Regexp
	most    int
}

// NewForm makes a form of at most so many bytes. The pattern is anchored by whoever writes it; a wrong one panics. Lengths do
// not belong into it: what regexp compiles of a count such as {0,251} is as long as the count, and all forms together took
// a function two milliseconds of its start.
func NewForm(pattern string, most int) Form {
	return Form{pattern: regexp.MustCompile(pattern), most: most}
}

// Match tells whether s is of the form.
func (f Form) Match(s string) bool { return len(s) <= f.most && f.pattern.MatchString(s) }

// String is the form as an error shows it.
func (f Form) String() string { return fmt.Sprintf("%s, and at most %d bytes long", f.pattern, f.most) }
