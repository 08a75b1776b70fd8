package grant_test

import (
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

func TestGenericObject_AcceptsPlainTagsOnly(t *testing.T) {
	fs := filesWith(replace("worker/host.json.tmpl", "{{ .FQDN }}", `role/app-{{ .Tag "team" }}`))
	for value, granted := range map[string]bool{"storage": true, "a_b.c-1": true, "a/team-b/root": false, "web SUPERUSER": false, "a=b": false, "a:b": false, "a+b": false, "a@b": false} {
		f := baseline()
		f.Tags["team"] = value
		if _, err := render(t, fs, f); (err == nil) != granted || (err != nil && fault.KindOf(err) != fault.Refuse) {
			t.Errorf("tag %q: want granted %v, got %v: any other character may have a meaning to the engine", value, granted, err)
		}
	}
}
