package grant_test

import (
	"maps"
	"slices"
	"testing"
)

// The doctor fails where a mount lacks one of these issuers, so one that some instances do not use must not be among them.
func TestIssuerRefs_AreThoseOfEveryInstance(t *testing.T) {
	for name, row := range map[string]struct {
		fields string
		want   []string
	}{
		"the default one":                  {``, []string{"default"}},
		"one as text":                      {`, "issuer_ref" : "use1"`, []string{"use1"}},
		"one beside a branch":              {`{{ if .FQDN }}, "ou": ["x"]{{ end }}, "issuer_ref": "use1"`, []string{"use1"}},
		"one in a branch":                  {`, "issuer_ref": {{ if eq .Region "us-east-1" }}"use1"{{ else }}"euw1"{{ end }}`, nil},
		"a field in a branch":              {`{{ if eq .Region "us-east-1" }}, "issuer_ref": "use1"{{ end }}`, nil},
		"a field in a branch not taken":    {`{{ if eq .Region "eu-west-1" }}, "issuer_ref": "euw1"{{ end }}`, nil},
		"a literal of a function":          {`, "issuer_ref": "{{ and (eq .Region "us-east-1") "use1" }}"`, nil},
		"a value, and the same as text":    {`, "issuer_ref": "{{ .Region }}", "ou": ["us-east-1"]`, nil},
		"a part of a value, with a branch": {`{{ if .FQDN }}{{ end }}, "issuer_ref": "{{ .Region }}"`, nil},
	} {
		set := loaded(t, filesWith(text("worker/kubelet.json.tmpl", `{"max_ttl": "24h"`+row.fields+`}`)))
		got := slices.Sorted(maps.Keys(set.IssuerRefs("alice_cluster/pki/k8s")))
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: want the issuers %q, got %q", name, row.want, got)
		}
	}
}
