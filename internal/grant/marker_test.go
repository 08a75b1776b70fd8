package grant_test

import (
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestMarker_IsReadFromLeadingCommentOnly(t *testing.T) {
	m := grant.Marker{Deployment: "vault-ec2", InstanceID: "i-0123456789abcdef0", Profile: "a-b"}
	for name, row := range map[string]struct {
		text string
		ok   bool
	}{
		"the marker alone":       {m.String() + "\npath \"x\" {}", true},
		"with carriage returns":  {strings.ReplaceAll(m.String(), "\n", "\r\n"), true},
		"behind a rule":          {"path \"x\" {}\n" + m.String(), false},
		"behind an empty line":   {"\n" + m.String(), false},
		"another program":        {strings.Replace(m.String(), grant.Program, "other", 1), false},
		"no deployment":          {strings.Replace(m.String(), "# deployment: vault-ec2\n", "", 1), false},
		"two deployments":        {m.String() + "# deployment: other\n", false},
		"no text":                {"", false},
		"an indented deployment": {strings.Replace(m.String(), "# deployment", " # deployment", 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := grant.ParseMarker(row.text)
			if ok != row.ok || (ok && got != m) {
				t.Errorf("got %+v, %v, want ok %v: the owner may delete the policy", got, ok, row.ok)
			}
		})
	}
}

func FuzzMarker(f *testing.F) {
	m := grant.Marker{Deployment: "vault-ec2", InstanceID: "i-0123456789abcdef0", Profile: "a-b"}.String()
	for _, s := range []string{"", m, "\n" + m, "path \"x\" {}\n" + m, m + m, "# a: b\n" + m, strings.ReplaceAll(m, "\n", "\r\n"), "#" + m, "# deployment: x\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := grant.ParseMarker(text)
		if !ok {
			return
		}
		// Only the leading comment may count: the rest is the template's, which must not name an owner.
		leading := text
		for i, line := range strings.SplitAfter(text, "\n") {
			if !strings.HasPrefix(line, "# ") {
				leading = strings.Join(strings.SplitAfter(text, "\n")[:i], "")
				break
			}
		}
		for _, part := range []string{"# managed-by: " + grant.Program, "# deployment: " + got.Deployment, "# instance: " + got.InstanceID, "# profile: " + got.Profile} {
			if strings.Count(leading, part) < 1 {
				t.Errorf("%q has the marker %+v, but %q is not in its leading comment", text, got, part)
			}
		}
	})
}
