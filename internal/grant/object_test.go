package grant_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestDifferences_NormaliseBothSides(t *testing.T) {
	role := grant.Object{Kind: grant.KindPKIRole, Path: "x", Fields: map[string]any{
		"max_ttl": int64(3600), "allowed_domains": []string{"a", "b"}, "allow_any_name": false, "not_after": "", "key_bits": int64(0),
	}}
	generic := grant.Object{Kind: grant.KindGeneric, Path: "x", Fields: map[string]any{"ttl": "1h", "users": "a,b", "note": "x", "none": ""}}
	for name, row := range map[string]struct {
		of   grant.Object
		got  map[string]any
		want []string
	}{
		"the same":                           {role, map[string]any{"max_ttl": float64(3600), "allowed_domains": []any{"b", "a"}, "allow_any_name": false, "key_bits": float64(2048)}, nil},
		"a duration as text, a list as text": {role, map[string]any{"max_ttl": "1h", "allowed_domains": "b,a", "allow_any_name": false}, nil},
		"one boolean loosened":               {role, map[string]any{"max_ttl": "1h", "allowed_domains": "b,a", "allow_any_name": true}, []string{"allow_any_name"}},
		"one more name, another time":        {role, map[string]any{"max_ttl": "2h", "allowed_domains": "a,b,c"}, []string{"allowed_domains", "max_ttl"}},
		"a far expiry":                       {role, map[string]any{"max_ttl": "1h", "allowed_domains": "a,b", "not_after": "9999-12-31T23:59:59Z"}, []string{"not_after"}},
		"the string 'true' for a boolean":    {role, map[string]any{"max_ttl": "1h", "allowed_domains": "a,b", "allow_any_name": "true"}, []string{"allow_any_name"}},
		"generic: a duration as a number":    {generic, map[string]any{"ttl": json.Number("3600"), "users": []any{"b", "a"}, "note": "x"}, nil},
		"generic: as they were written":      {generic, map[string]any{"ttl": "1h", "users": "a,b", "note": "x", "none": ""}, nil},
		"generic: another duration":          {generic, map[string]any{"ttl": json.Number("3601"), "users": "a,b", "note": "x"}, []string{"ttl"}},
		"generic: a number for a text":       {generic, map[string]any{"ttl": "1h", "users": "a,b", "note": json.Number("0"), "none": json.Number("0")}, []string{"none", "note"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := row.of.Differences(row.got); !slices.Equal(got, row.want) {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

// Vault chose the hash where it answers 0. TestRoleFields_FollowVault in infra/lab/integration shows where it does.
func TestDifferences_AcceptADroppedHash(t *testing.T) {
	for name, row := range map[string]struct {
		kind       grant.Kind
		field      string
		wanted     int64
		got        any
		isAccepted bool
	}{
		"a hash that Vault dropped":           {grant.KindPKIRole, "signature_bits", 384, json.Number("0"), true},
		"a hash that Vault chose":             {grant.KindPKIRole, "signature_bits", 0, json.Number("256"), true},
		"another hash":                        {grant.KindPKIRole, "signature_bits", 384, json.Number("256"), false},
		"a hash that the answer lacks":        {grant.KindPKIRole, "signature_bits", 384, nil, false},
		"the length of a key":                 {grant.KindPKIRole, "key_bits", 4096, json.Number("0"), false},
		"the field of a generic object":       {grant.KindGeneric, "signature_bits", 384, json.Number("0"), false},
		"a lifetime, by which a key is bound": {grant.KindPKIRole, "max_ttl", 3600, json.Number("0"), false},
	} {
		o := grant.Object{Kind: row.kind, Path: "x", Fields: map[string]any{row.field: row.wanted}}
		if got := o.Differences(map[string]any{row.field: row.got}); (len(got) == 0) != row.isAccepted {
			t.Errorf("%s: %s %v, answered as %v: want it accepted: %v, got the differences %v", name, row.field, row.wanted, row.got, row.isAccepted, got)
		}
	}
}

func TestDifferences_ComparePolicyMarkerAndRules(t *testing.T) {
	marker := grant.Marker{Deployment: "vault-ec2", InstanceID: "i-0123456789abcdef0", Profile: "a-b"}.String()
	text := marker + "\npath \"a\" {\n  capabilities = [\"read\", \"list\"]\n}\n\npath \"b\" { capabilities = [\"update\"]\n allowed_parameters = { x = [\"1\", [\"1\", \"2\"]] } }\n"
	o := grant.Object{Kind: grant.KindPolicy, Path: "x", Fields: map[string]any{"policy": text}}
	for name, row := range map[string]struct {
		got  string
		same bool
	}{
		"the same text":              {text, true},
		"in another layout":          {marker + `path "b" { allowed_parameters = { "x" = ["1", ["1", "2"]] } capabilities = ["update"] } path "a" { capabilities = ["list", "read"] } # end`, true},
		"one capability more":        {strings.Replace(text, `"list"`, `"list", "sudo"`, 1), false},
		"one rule more":              {text + `path "c" { capabilities = ["read"] }`, false},
		"one value more":             {strings.Replace(text, `["1", [`, `["1", "2", [`, 1), false},
		"one value more in a list":   {strings.Replace(text, `"2"]`, `"2", "3"]`, 1), false},
		"a list in another order":    {strings.Replace(text, `"1", "2"]`, `"2", "1"]`, 1), false},
		"a list spread out":          {strings.Replace(text, `["1", "2"]`, `"1", "2"`, 1), false},
		"a document of its own":      {text + "\n# identity: {}\n", false},
		"another marker":             {strings.Replace(text, "vault-ec2\n", "other\n", 1), false},
		"no marker":                  {strings.TrimPrefix(text, marker), false},
		"a rule that appears twice":  {text + `path "a" { capabilities = ["read"] }`, false},
		"a text that does not parse": {text + "path {", false},
		"no text":                    {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := len(o.Differences(map[string]any{"policy": row.got})) == 0; got != row.same {
				t.Errorf("compared as the same: %v, want %v", got, row.same)
			}
		})
	}
}

func TestDigest_DiffersByFields(t *testing.T) {
	seen := map[string]string{}
	for name, fields := range map[string]map[string]any{
		"nothing": {}, "a text": {"a": "1"}, "a number": {"a": int64(1)}, "another name": {"b": "1"}, "true": {"a": true}, "false": {"a": false},
		"a list of one": {"a": []string{"1"}}, "of two": {"a": []string{"1", "2"}}, "of one that looks like two": {"a": []string{"1,2"}}, "of one that is written like two": {"a": []string{"11:2"}},
		"no list": {"a": []string{}}, "two fields": {"a": "1", "b": "2"}, "one that is written like two": {"a": "11:bs1:2"}, "a list between": {"a": []string{"1"}, "b": "2"},
		"any JSON": {"a": []any{"1", true, 1.5}}, "other JSON": {"a": []any{"1", true, 2.5}}, "null": {"a": nil},
	} {
		digest := grant.Object{Fields: fields}.SHA256()
		if other, taken := seen[digest]; taken {
			t.Errorf("%s and %s have the same digest: a change from one to the other would be missed", name, other)
		}
		seen[digest] = name
		if again := (grant.Object{Fields: maps.Clone(fields)}).SHA256(); again != digest {
			t.Errorf("%s: two digests, %s and %s", name, digest, again)
		}
	}
}
