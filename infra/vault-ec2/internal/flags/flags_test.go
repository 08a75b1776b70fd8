package flags

import (
	"slices"
	"strings"
	"testing"
)

func TestSecondDash_GoesToKnownFlagsAlone(t *testing.T) {
	kinds := map[string]Kind{"mode": WithValue, "force": Alone, "yes": WithValue, "o": WithValue}
	kind := func(name string) Kind { return kinds[name] }
	for given, want := range map[string]string{
		"":                        "",
		"-mode detect":            "--mode detect",
		"-mode=detect -force":     "--mode=detect --force",
		"-force=true -mode x":     "--force=true --mode x",
		"--mode detect --force":   "--mode detect --force",
		"-other -o json":          "-other -o json",
		"-yes -force":             "--yes -force", // the name of a deployment may begin with a dash
		"--yes -mode -force":      "--yes -mode --force",
		"-yes=x -mode detect":     "--yes=x --mode detect",
		"-force -- -mode":         "--force -- -mode",
		"-mode -- -force":         "--mode -- --force",
		"-":                       "-",
		"i-0123456789abcdef0 -=x": "i-0123456789abcdef0 -=x",
	} {
		if got := SecondDash(strings.Fields(given), kind); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: want %q, got %q", given, want, got)
		}
	}
}

func TestPairs_NeedAKeyAndAValue(t *testing.T) {
	into := map[string]string{}
	if err := Pairs(into)("provision=arn:aws:iam::1:role/a=b"); err != nil || into["provision"] != "arn:aws:iam::1:role/a=b" {
		t.Errorf("want the pair split at its first sign, got %q, %v", into, err)
	}
	for _, s := range []string{"", "x", "=x", "x="} {
		if Pairs(into)(s) == nil {
			t.Errorf("%q: want it refused", s)
		}
	}
}

func TestFormat_IsTableOrJSON(t *testing.T) {
	f := Table
	if err := f.Set("json"); err != nil || f != JSON {
		t.Errorf("want json, got %q, %v", f, err)
	}
	if err := f.Set("yaml"); err == nil || f != JSON {
		t.Errorf("want another format refused and none set, got %q, %v", f, err)
	}
}
