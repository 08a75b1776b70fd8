package facts_test

import (
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

func TestForm_IsPatternAndLength(t *testing.T) {
	f := facts.NewForm(`^[a-z](?:[a-z-]*[a-z])?$`, 5)
	for text, want := range map[string]bool{"a": true, "a-b": true, "abcde": true, "abcdef": false, "": false, "a-": false, "A": false, "a\n": false} {
		if f.Match(text) != want {
			t.Errorf("%q matches %s: %v, want %v", text, f, !want, want)
		}
	}
	if s := f.String(); !strings.Contains(s, "[a-z-]*") || !strings.Contains(s, "5 bytes") {
		t.Errorf("want the pattern and the length, got %q", s)
	}
}
