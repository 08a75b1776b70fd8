package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/released"
)

// followTime is a moment more than functions keep profiles without asking for the active ones.
const followTime = 10500 * time.Millisecond

// root is the repository's root, from this folder.
const root = "../../.."

// gateway is the kind of testdata/profiles, which no build contains.
var gateway = kind{"carol-gateway", func(i fleet.Instance) (string, map[string]any) {
	return "carol/pki/edge/issue/" + i.ID + "-edge", map[string]any{"common_name": i.PrivateDNS, "ip_sans": i.PrivateIP}
}}

// fromRelease starts a world of a release's files alone: the packaged template and functions, and Vault prepared by the command of the
// release, as docs/deploying.md has it.
func fromRelease(t *testing.T) *lab.World {
	t.Helper()
	files, _, err := released.Make(t.Context(), root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	if err := released.Unpack(files, at); err != nil {
		t.Fatal(err)
	}
	parameters := lab.Parameters()
	parameters["Profiles"] = "active"
	w, err := lab.Start(t.Context(), lab.Options{
		RepoRoot: root, Template: filepath.Join(at, "template.yaml"), BuildDir: filepath.Join(at, "build"), Parameters: parameters,
		Profiles: os.DirFS("testdata/profiles"), SetupVault: prepareByStack, Progress: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	labtest.CloseLater(t, w)
	return w
}

// prepareByStack prepares Vault by the stack's name. What it adds is the lab's: moto's address, keys for it, and PKI mounts.
func prepareByStack(ctx context.Context, w *lab.World) error {
	cmd, err := w.Command(ctx, "setup", "--stack", w.Stack.Name, "--templates-dir", w.Profiles, "--aws-endpoint", w.MotoURL, "--aws-keys", "--pki")
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("vault-ec2 setup: %w\n%s", err, out)
	}
	return nil
}

// shorter returns the profiles with a shorter life of tokens and certificates, and a further right.
func shorter(t *testing.T, profiles string) string {
	t.Helper()
	return labtest.Edited(t, profiles,
		[3]string{"common/profile.yaml", "token_ttl: 1h", "token_ttl: 30m"},
		[3]string{"gateway/edge.json.tmpl", "72h", "24h"},
		[3]string{"common/policy.hcl.tmpl", "lookup-self\" {", "renew-self\" {\n  capabilities = [\"update\"]\n}\n\npath \"auth/token/lookup-self\" {"})
}

// An installation has the release's files and profiles of its own, and no Go. Its profiles are changed and taken back while instances
// use their certificates.
func TestInstall_ByReleasedFilesAlone(t *testing.T) {
	w := fromRelease(t)
	o := operate(t, w, w.Functions[reconcile])
	o.run(t, 2, "no profiles are active", "doctor")
	o.run(t, 0, "are active", "apply", "--yes", w.Profiles)
	o.run(t, 0, "v"+released.Version, "doctor")

	l := start(t, w, gateway, 6)
	l.has(t, 3)
	change := shorter(t, w.Profiles)
	o.run(t, 1, "changed", "plan", change)
	o.run(t, 0, "are active", "apply", "--yes", change)
	time.Sleep(followTime)
	o.correct(t)
	l.wantTTL(t, 30*time.Minute)
	l.has(t, 3)
	o.run(t, 0, "are active", "apply", "--yes", "--previous")
	time.Sleep(followTime)
	o.correct(t)
	l.wantTTL(t, time.Hour)
	l.has(t, 3)
	l.finish(t)
	o.run(t, 0, "", "reconcile")
}

// wantTTL fails unless the auth role of each steady instance has a token_ttl.
func (l *load) wantTTL(t *testing.T, want time.Duration) {
	t.Helper()
	for _, i := range l.steady {
		answer, err := l.world.Vault.Logical().ReadWithContext(t.Context(), "auth/"+l.world.AuthMount+"/role/"+i.ID)
		if err != nil || answer == nil {
			t.Fatalf("reading the auth role of %s: %v, %v", i.ID, answer, err)
		}
		if got := fmt.Sprint(answer.Data["token_ttl"]); got != fmt.Sprint(int(want.Seconds())) {
			t.Errorf("%s: want the token_ttl %v by the active profiles, got %s s", i.ID, want, got)
		}
	}
}
