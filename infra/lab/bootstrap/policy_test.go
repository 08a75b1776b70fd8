package bootstrap

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl"
)

type right struct {
	path       string
	capability string
}

// parse returns the rights of a policy's text, one for each capability.
func parse(t *testing.T, text string) []right {
	t.Helper()
	var policy struct {
		Path map[string]struct{ Capabilities []string }
	}
	if err := hcl.Decode(&policy, text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var out []right
	for path, p := range policy.Path {
		for _, c := range p.Capabilities {
			out = append(out, right{path, c})
		}
	}
	slices.SortFunc(out, func(a, b right) int { return strings.Compare(a.path+a.capability, b.path+b.capability) })
	return out
}

func render(rights []right) string {
	paths := map[string][]string{}
	for _, r := range rights {
		paths[r.path] = append(paths[r.path], `"`+r.capability+`"`)
	}
	var out strings.Builder
	for path, capabilities := range paths {
		out.WriteString(`path "` + path + `" { capabilities = [` + strings.Join(capabilities, ", ") + "] }\n")
	}
	return out.String()
}

// twice runs the command on a Vault without its objects, and again with all values changed: the first run creates, the
// second updates, and Vault requires another capability for each. The second run also marks the mounts.
func (w *world) twice(t *testing.T, token string, args []string) (string, error) {
	t.Helper()
	out, err := w.run(t, token, append(args, "-server-id", "one", "-sts-role", "111122223333=arn:aws:iam::111122223333:role/one", "-sts-role", "1=arn:aws:iam::1:role/one",
		"-function-role", "provision=arn:aws:iam::1:role/p1", "-function-role", "deprovision=arn:aws:iam::1:role/d1", "-function-role", "reconcile=arn:aws:iam::1:role/r1")...)
	if err != nil {
		return out, err
	}
	return w.run(t, token, append(args, "-server-id", "two", "-sts-role", "111122223333=arn:aws:iam::111122223333:role/two", "-sts-role", "1=arn:aws:iam::1:role/two",
		"-function-role", "provision=arn:aws:iam::1:role/p2", "-function-role", "deprovision=arn:aws:iam::1:role/d2", "-function-role", "reconcile=arn:aws:iam::1:role/r2",
		"-also-path", "old/ssh", "-deployment", "one")...)
}

// clear deletes the objects that the command made.
func (w *world) clear(t *testing.T) {
	t.Helper()
	for _, path := range []string{
		"sys/auth/instances", "sys/auth/functions", "sys/mounts/bob/pki/k8s", "sys/mounts/carol/pki/k8s", "sys/mounts/bob/hosts", "sys/mounts/carol/hosts",
		"sys/policies/acl/try-provision", "sys/policies/acl/try-deprovision", "sys/policies/acl/try-reconcile",
	} {
		if _, err := w.vault.Logical().DeleteWithContext(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
}

// holder returns a token with the policy alone.
func (w *world) holder(t *testing.T, policy string) string {
	t.Helper()
	w.write(t, "sys/policies/acl/person", map[string]any{"policy": policy})
	return w.as(t, "person").Token()
}

func TestSetup_NeedsExactlyThePrintedPolicy(t *testing.T) {
	w := start(t)
	args := []string{
		"-templates-dir", profiles(t), "-auth-mount", "instances", "-login-mount", "functions", "-role-prefix", "try", "-pki", "-set-alias",
		"-resolve-unique-ids=false", "-certificate", "xx-new-1=" + newSigned(t).file,
	}
	printed, err := w.run(t, "none", append(args, "-print-policy", "-deployment", "one", "-server-id", "one", "-sts-role", "111122223333=arn:aws:iam::111122223333:role/one",
		"-sts-role", "1=arn:aws:iam::1:role/one", "-function-role", "provision=arn:aws:iam::1:role/p1")...)
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	if n := len(w.tap.Calls()); n > 0 {
		t.Errorf("printing the policy sent Vault %d requests: it must work without a token", n)
	}
	all := parse(t, printed)
	with, err := w.twice(t, w.holder(t, printed), args)
	if err != nil {
		t.Fatalf("with the printed policy:\n%s\n%v\n%s", printed, err, with)
	}
	if strings.Contains(with, "not checked") {
		t.Errorf("with the printed policy not everything was checked:\n%s", with)
	}
	for _, r := range all {
		w.clear(t)
		less := slices.DeleteFunc(slices.Clone(all), func(other right) bool { return other == r })
		out, err := w.twice(t, w.holder(t, render(less)), args)
		noticed := strings.Contains(out, "not checked") && strings.Contains(out, "permission denied")
		if err == nil && !noticed {
			t.Errorf("without %s on %s it works too: the right is not needed", r.capability, r.path)
		} else if err != nil && !strings.Contains(out, "permission denied") {
			t.Errorf("without %s on %s it fails for another reason:\n%s", r.capability, r.path, out)
		}
	}
	if len(all) < 20 {
		t.Errorf("only %d rights were tried: %v", len(all), all)
	}
}
