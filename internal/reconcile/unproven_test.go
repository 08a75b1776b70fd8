package reconcile

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// away is the bindings of an auth role to a place that no run compares.
var away = map[string]any{"bound_account_id": []any{"999988887777"}, "bound_region": []any{"eu-west-1"}}

// login returns an auth role as Vault answers it.
func login(fields ...map[string]any) map[string]any {
	role := map[string]any{"auth_type": "iam"}
	for _, f := range fields {
		maps.Copy(role, f)
	}
	return role
}

func gives(policies ...any) map[string]any { return map[string]any{"token_policies": policies} }

func markedFor(instanceID, deployment string) map[string]any {
	return map[string]any{"policy": grant.Marker{Deployment: deployment, InstanceID: instanceID, Profile: "x-y"}.String()}
}

func TestUnproven_IsReportedNeverRemoved(t *testing.T) {
	const x = "i-0fffffffffffffff1"
	role, policy := grant.AuthRolePath("aws", x), grant.PolicyPath(grant.PolicyName(x, "zzz"))
	pki := "alice_cluster/pki/k8s/roles/" + x + "-zzz"
	only := map[string]any{"bound_ec2_instance_id": []any{x}}
	anybody := map[string]any{"bound_iam_principal_arn": []any{"arn:aws:iam::999988887777:user/somebody"}}
	unmarked := map[string]any{"policy": `path "*" { capabilities = ["sudo"] }`}
	for name, row := range map[string]struct {
		objects map[string]map[string]any
		state   facts.State // that EC2 shows; empty for none
		want    []string    // sorted
	}{
		"a login for a foreign user, and its policy":      {map[string]map[string]any{role: login(away, anybody, gives("ec2-"+x+"-zzz")), policy: unmarked}, "", []string{role, policy}},
		"the same without a place":                        {map[string]map[string]any{role: login(anybody, gives("ec2-"+x+"-zzz")), policy: unmarked}, "", []string{role, policy}},
		"a login that gives what is not the instance's":   {map[string]map[string]any{role: login(away, only, gives("admin"))}, "", []string{role}},
		"a login that gives a policy that does not exist": {map[string]map[string]any{role: login(away, only, gives("ec2-"+x+"-zzz"))}, "", []string{role}},
		"an unmarked policy beside a login":               {map[string]map[string]any{role: login(away, only, gives("ec2-"+x+"-zzz")), policy: unmarked}, "", []string{role, policy}},
		"another instance's marker":                       {map[string]map[string]any{role: login(away, only, gives("ec2-"+x+"-zzz")), policy: markedFor(id(0), neighbour.Deployment)}, "", []string{role, policy}},
		"a forged marker, and a login for a foreign user": {map[string]map[string]any{role: login(away, anybody, gives("ec2-"+x+"-zzz")), policy: markedFor(x, "vault-ec2"), pki: {}}, "", []string{pki, role, policy}},
		"a PKI role alone":                                {map[string]map[string]any{pki: {"allow_any_name": true}}, "", []string{pki}},
		"a login beside a PKI role":                       {map[string]map[string]any{role: login(away, only), pki: {}}, "", []string{pki, role}},
		"the name of a stopped instance":                  {map[string]map[string]any{role: login(anybody, gives("ec2-"+x+"-zzz")), policy: unmarked}, facts.Stopped, []string{role, policy}},
		"another deployment's instance":                   {map[string]map[string]any{role: login(away, only, gives("ec2-"+x+"-zzz")), policy: markedFor(x, neighbour.Deployment), pki: {}}, "", nil},
		"another deployment's stopped instance":           {map[string]map[string]any{role: login(only, gives("ec2-"+x+"-zzz")), policy: markedFor(x, neighbour.Deployment), pki: {}}, facts.Stopped, nil},
		"an instance of a stack of the same name":         {map[string]map[string]any{role: login(away, only, gives("ec2-"+x+"-zzz")), policy: markedFor(x, "vault-ec2"), pki: {}}, "", nil},
	} {
		for _, in := range []Input{{Mode: Detect}, {Mode: Correct, Force: true}, {Mode: Correct, InstanceIDs: []string{x}}} {
			w := newWorld(t, 3)
			maps.Copy(w.Objects, row.objects)
			if row.state != "" {
				f := worker(50)
				f.ID, f.State = x, row.state
				w.launch(noRole(f))
			}
			before := maps.Clone(w.Objects)
			a := w.reconcile(in, adopting)
			var got []string
			for _, d := range a.Drift {
				if d.Reason != Conflicting || d.Action != None || d.InstanceID != x || d.Error == "" {
					t.Errorf("%s, %s: want conflicting rows without an action, got %+v", name, in.Mode, d)
				}
				got = append(got, d.Path)
			}
			slices.Sort(got)
			if touched := w.touched(before); !slices.Equal(got, row.want) || len(touched)+len(w.cut) > 0 {
				t.Errorf("%s, %+v: want rows for %q and nothing done, touched %q, got\n%s", name, in, row.want, touched, answerText(a))
			}
		}
	}
}

func TestUnproven_IgnoresOtherDeployments(t *testing.T) {
	f := worker(50)
	f.Account = "999988887777"
	for name, arrange := range map[string]func(*world){
		"its policy is made after the list":    func(w *world) { w.makeLate(grant.PolicyFolder, grant.PolicyName(f.ID, "node")) },
		"its auth role is made after the list": func(w *world) { w.makeLate("auth/aws/role", f.ID) },
		"all of it is removed after the lists": func(w *world) {
			w.after = func(kind, what string) {
				if kind == "read" && strings.Contains(what, f.ID) {
					maps.DeleteFunc(w.Objects, func(path string, _ map[string]any) bool { return strings.Contains(path, f.ID) })
				}
			}
		},
	} {
		w := newWorld(t, 3)
		w.makeObjects(f, neighbour)
		for field, value := range away { // lists as Vault answers them
			w.loosen(grant.AuthRolePath("aws", f.ID), field, value)
		}
		arrange(w)
		w.wantNoDrift(Input{Mode: Detect}, name)
	}
}
