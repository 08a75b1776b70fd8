package settings

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

const (
	required = true
	optional = false
)

// reader reads variables and collects their faults.
type reader struct {
	getenv func(string) string
	files  fs.FS // the functions' package
	faults []error
}

func (r *reader) invalid(name, why string) {
	r.faults = append(r.faults, fmt.Errorf("%s %w: %s", name, ErrInvalid, why))
}

// text returns a variable, or the default standard.
func (r *reader) text(name, standard string, isRequired bool) string {
	v := strings.TrimSpace(r.getenv(name))
	if v == "" {
		if isRequired {
			r.faults = append(r.faults, fmt.Errorf("%s %w", name, ErrMissing))
		}
		return standard
	}
	return v
}

// form returns a variable that must have a form.
func (r *reader) form(name, standard string, want facts.Form, isRequired bool) string {
	v := r.text(name, standard, isRequired)
	if v != "" && !want.Match(v) {
		r.invalid(name, fmt.Sprintf("%q is not of the form %s", v, want))
	}
	return v
}

// namespace returns the path of a namespace, empty for the root one.
func (r *reader) namespace(name string) string {
	path, err := grant.ParseNamespace(r.text(name, "", optional))
	if err != nil {
		r.invalid(name, err.Error())
	}
	return path
}

// oneOf returns a variable that must be one of the values. The first is the default.
func (r *reader) oneOf(name string, values ...string) string {
	v := r.text(name, values[0], optional)
	if slices.Contains(values, v) {
		return v
	}
	r.invalid(name, fmt.Sprintf("%q is none of %s", v, strings.Join(values, ", ")))
	return values[0]
}

// profiles reads where the profiles come from.
func (r *reader) profiles(name string) Profiles {
	const builtIn, active = "built-in", "active"
	switch text := r.text(name, builtIn, optional); text {
	case builtIn:
		return Profiles{}
	case active:
		return Profiles{FromLedger: true}
	default:
		digests := r.list(name, bundleDigest.Match)
		if len(digests) == 0 { // without one, every profile would count
			r.invalid(name, fmt.Sprintf("%q is neither %s nor %s, and names no digest", text, builtIn, active))
		}
		return Profiles{FromLedger: true, Digests: digests}
	}
}

// list returns the valid values of a list, without duplicates: a variable with commas between the values, or @ and the name of a
// file of the package with one value on each line and comments after #. All variables of a function together have 4 KB.
// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
func (r *reader) list(name string, valid func(string) bool) []string {
	text := r.text(name, "", optional)
	if file, isFile := strings.CutPrefix(text, "@"); isFile {
		return r.lines(name, file, valid)
	}
	var out []string
	for v := range strings.SplitSeq(text, ",") {
		v = strings.TrimSpace(v)
		switch {
		case v == "" || slices.Contains(out, v):
		case !valid(v):
			r.invalid(name, fmt.Sprintf("%q is not of the right form", v))
		default:
			out = append(out, v)
		}
	}
	return out
}

// lines returns the valid values of a file of the package, without duplicates.
func (r *reader) lines(name, file string, valid func(string) bool) []string {
	text, err := fs.ReadFile(r.files, file)
	if err != nil {
		r.invalid(name, fmt.Sprintf("the functions' package has no file %q that can be read: %v; build it with the file in place", file, err))
		return nil
	}
	var out []string
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		v, _, _ := strings.Cut(line, "#")
		v = strings.TrimSpace(v)
		switch {
		case v == "" || slices.Contains(out, v):
		case !valid(v):
			r.invalid(name, fmt.Sprintf("%s:%d: %q is not of the right form", file, n, v))
		default:
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		r.invalid(name, fmt.Sprintf("the file %q names none", file)) // an empty variable has another meaning
	}
	return out
}

// allowedAccounts returns a list of accounts, or AnyAccount alone. A file cannot say *: the template bounds it to the organization, and
// sees only the variable. A file may have pairs, since one file serves this variable and RECONCILE_ACCOUNTS.
func (r *reader) allowedAccounts(name string) []string {
	text := r.text(name, "", optional)
	if text == AnyAccount {
		return []string{AnyAccount}
	}
	if !strings.HasPrefix(text, "@") {
		return r.list(name, facts.IsAccount)
	}
	var out []string
	for _, v := range r.list(name, isAccountOrPair) {
		if account, _, _ := strings.Cut(v, ":"); !slices.Contains(out, account) {
			out = append(out, account)
		}
	}
	return out
}

// accounts reads a list of accounts and of pairs <account>:<region>.
func (r *reader) accounts(name string) (accounts []string, pairs []facts.Place) {
	for _, v := range r.list(name, isAccountOrPair) {
		account, region, isPair := strings.Cut(v, ":")
		if isPair {
			pairs = append(pairs, facts.Place{Account: account, Region: region})
		} else {
			accounts = append(accounts, account)
		}
	}
	return accounts, pairs
}

func isAccountOrPair(s string) bool {
	account, region, isPair := strings.Cut(s, ":")
	return facts.IsAccount(account) && (!isPair || facts.IsRegion(region))
}

func (r *reader) percent(name string, standard int) int {
	v := r.text(name, strconv.Itoa(standard), optional)
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > 100 {
		r.invalid(name, fmt.Sprintf("%q is not a whole number from 0 to 100", v))
	}
	return n
}

// severity returns the lowest severity of a variable that is off or a level of GuardDuty; 0 for off.
// https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-severity.html
func (r *reader) severity(name string) float64 {
	return map[string]float64{"low": 1, "medium": 4, "high": 7}[r.oneOf(name, "off", "low", "medium", "high")]
}

// duration returns a variable that must be a positive Go duration of whole seconds, since Vault counts lifetimes in seconds.
func (r *reader) duration(name, standard string) time.Duration {
	v := r.text(name, standard, optional)
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 || d%time.Second != 0 {
		r.invalid(name, fmt.Sprintf("%q is not a positive duration of whole seconds, such as 8760h", v))
	}
	return d
}

// maxNameWait is less than the time for which the queue delivers an event.
const maxNameWait = time.Hour

// wait returns a variable that must be a Go duration of whole seconds, from 0s to a longest one.
func (r *reader) wait(name, standard string, longest time.Duration) time.Duration {
	v := r.text(name, standard, optional)
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 || d > longest || d%time.Second != 0 {
		r.invalid(name, fmt.Sprintf("%q is not a duration of whole seconds from 0s to %s, such as 10m", v, longest))
	}
	return d
}

// address returns a variable that must be an https address without user, path and query, or an http one of this host.
func (r *reader) address(name string, isRequired bool) string {
	v := strings.TrimSuffix(r.text(name, "", isRequired), "/")
	if v == "" {
		return ""
	}
	u, err := url.Parse(v)
	switch {
	case err != nil, u.Host == "", u.Scheme != "https" && u.Scheme != "http":
		r.invalid(name, "want https://host:port")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		r.invalid(name, "want https: a token would travel unencrypted (http is for an agent on this machine)")
	case u.User != nil, u.Path != "", u.RawQuery != "", u.Fragment != "":
		r.invalid(name, "want https://host:port without user, path and query")
	}
	return v
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

func (r *reader) level(name string) slog.Level {
	switch r.oneOf(name, "info", "debug", "warn", "error") {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}
