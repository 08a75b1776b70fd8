package wiring

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// store has versions of profiles, the newest first, and counts the questions about them.
type store struct {
	versions  []string
	bundles   map[string][]byte
	err       error
	questions int    // about the versions
	failing   string // the digest of a bundle that cannot be read
}

func (s *store) ProfileVersions(context.Context) (v ledger.ProfileVersions, _ error) {
	s.questions++
	for _, digest := range s.versions {
		v.Versions = append(v.Versions, ledger.ProfileVersion{Digest: digest})
	}
	return v, s.err
}

func (s *store) Bundle(_ context.Context, digest string) ([]byte, error) {
	if s.failing != "" && digest == s.failing {
		return nil, errors.New("throttled")
	}
	return s.bundles[digest], s.err
}

// activate makes a bundle the newest version and returns its digest.
func (s *store) activate(t *testing.T, text string) string {
	t.Helper()
	b, err := bundle.Pack(fstest.MapFS{
		"w/profile.yaml": {Data: []byte("name: a-worker\nmatch: {iam_role_arn: \"arn:aws:iam::*:role/w\", vpc_ids: [vpc-0a1b2c3d]}\nbase_path: a\n" +
			"fqdn: \"{{ .PrivateDNSName }}\"\nauth: {token_ttl: 1h, token_max_ttl: 2h}\noutputs:\n  - {name: node, type: policy, template: p.tmpl}\n")},
		"w/p.tmpl": {Data: []byte(text)},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.bundles[b.Digest] = b.Packed
	s.versions = append([]string{b.Digest}, s.versions...)
	return b.Digest
}

const (
	goodPolicy  = "path \"a/kv\" {\n  capabilities = [\"read\"]\n}\n"
	otherPolicy = "path \"a/other\" {\n  capabilities = [\"read\"]\n}\n"
	openPolicy  = "path \"*\" {\n  capabilities = [\"sudo\"]\n}\n" // the guard refuses it
)

// follower is an activated source on a store and a clock.
type follower struct {
	activated
	*store
	clock time.Time
	text  bytes.Buffer
}

func newFollower() *follower {
	f := &follower{store: &store{bundles: map[string][]byte{}}, clock: time.Unix(1e9, 0)}
	load := func(files fs.FS) (*grant.Set, error) { return grant.LoadDeployed(files, grant.DefaultRules()) }
	f.activated = activated{store: f.store, kept: profilesKept, load: load, log: slog.New(slog.NewTextHandler(&f.text, nil)), now: func() time.Time { return f.clock }}
	return f
}

// want fails unless the profiles after ten seconds are those of a digest, and the wanted ones are refused or not.
func (f *follower) want(t *testing.T, digest string, refused bool) {
	t.Helper()
	f.clock = f.clock.Add(profilesKept)
	got, err := f.profiles(t.Context())
	if err != nil || got.digest != digest || got.set == nil || (got.refused != nil) != refused {
		t.Fatalf("want the profiles %s, and others refused: %v; got %s, %v, %v", bundle.Short(digest), refused, bundle.Short(got.digest), got.refused, err)
	}
}

func TestProfiles_FollowTheActiveVersion(t *testing.T) {
	f := newFollower()
	if _, err := f.profiles(t.Context()); !errors.Is(err, errNoProfiles) {
		t.Fatalf("want no profiles before the first activation, got %v", err)
	}
	first := f.activate(t, goodPolicy)
	f.want(t, first, false)
	n := f.questions
	second := f.activate(t, otherPolicy)
	f.clock = f.clock.Add(profilesKept - time.Second)
	if got, err := f.profiles(t.Context()); err != nil || got.digest != first || f.questions != n {
		t.Errorf("want the ledger asked every ten seconds, got %s after %d questions, %v", got.digest, f.questions-n, err)
	}
	f.want(t, second, false)
	f.versions = append([]string{first}, f.versions...) // taken back
	f.want(t, first, false)
}

// Reconcile keeps profiles for no time: an operator who activates profiles has it bring the fleet to them at once.
func TestProfiles_ReconcileAsksAtEachInvocation(t *testing.T) {
	f := newFollower()
	f.kept = 0
	for _, text := range []string{goodPolicy, otherPolicy} {
		wanted := f.activate(t, text)
		if got, err := f.profiles(t.Context()); err != nil || got.digest != wanted {
			t.Errorf("want the profiles %s that were activated in this second, got %s, %v", bundle.Short(wanted), bundle.Short(got.digest), err)
		}
	}
}

func TestProfiles_BadOnesNeverReplaceGoodOnes(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, f *follower){
		"the guard refuses a policy": func(t *testing.T, f *follower) { f.activate(t, openPolicy) },
		"a template does not parse":  func(t *testing.T, f *follower) { f.activate(t, "{{") },
		"the bundle is missing":      func(_ *testing.T, f *follower) { f.versions = append([]string{strings.Repeat("0", 64)}, f.versions...) },
		"the bundle has other files": func(t *testing.T, f *follower) {
			good := f.versions[0]
			f.bundles[f.activate(t, otherPolicy)] = f.bundles[good]
		},
		"the bundle is no bundle":    func(t *testing.T, f *follower) { f.bundles[f.activate(t, otherPolicy)] = []byte("x") },
		"nothing is active any more": func(_ *testing.T, f *follower) { f.versions = nil },
		"another deployment's ledger": func(_ *testing.T, f *follower) {
			f.bundles = map[string][]byte{}
			f.versions = []string{strings.Repeat("1", 64)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFollower()
			good := f.activate(t, goodPolicy)
			f.want(t, good, false)
			spoil(t, f)
			f.want(t, good, true)
			if !strings.Contains(f.text.String(), "the wanted profiles are not used") {
				t.Errorf("want a line in the log, got %q", f.text.String())
			}
			f.err = nil
			f.want(t, f.activate(t, otherPolicy+"\n"), false)
		})
	}
}

// An outage says nothing about profiles. At a start no earlier version may take the place of the active one, which could be its mend.
func TestProfiles_OutageChangesNothing(t *testing.T) {
	f := newFollower()
	former, active := f.activate(t, goodPolicy), f.activate(t, otherPolicy)
	f.failing = active
	if got, err := f.profiles(t.Context()); err == nil {
		t.Fatalf("the active profiles cannot be read: want an error, and the events back in the queue, got %s", bundle.Short(got.digest))
	}
	f.failing = ""
	f.want(t, active, false)
	f.err = errors.New("down")
	f.want(t, active, false)
	if !strings.Contains(f.text.String(), "could not be read, and the present ones go on") {
		t.Errorf("want a line in the log, got %q", f.text.String())
	}
	f.err = nil
	f.versions = append([]string{former}, f.versions...)
	f.want(t, former, false)
}

func TestProfiles_ForeignVersionIsPassedOver(t *testing.T) {
	f := newFollower()
	good := f.activate(t, goodPolicy)
	f.versions = append([]string{""}, f.versions...)
	f.want(t, good, true)
}

// A function that starts has no profiles to go on with.
func TestProfiles_NewestGoodVersionAtStart(t *testing.T) {
	f := newFollower()
	good := f.activate(t, goodPolicy)
	f.activate(t, openPolicy)
	f.activate(t, "{{")
	f.want(t, good, true)
	f.want(t, good, true)
	f.want(t, f.activate(t, otherPolicy), false)
	f = newFollower()
	f.activate(t, openPolicy)
	if _, err := f.profiles(t.Context()); err == nil {
		t.Error("no version loads: want an error, and the events back in the queue")
	}
}

func TestProfiles_PinnedAreTheOnlyOnes(t *testing.T) {
	f := newFollower()
	first, second := f.activate(t, goodPolicy), f.activate(t, otherPolicy)
	f.pinned = []string{first}
	f.want(t, first, false)
	if f.questions != 0 {
		t.Error("want the active version not asked for: who writes the table must not decide")
	}
	f.bundles[first] = f.bundles[second]
	f.current = profileSet{}
	if got, err := f.profiles(t.Context()); err == nil {
		t.Errorf("want no other profiles under a pinned digest, got %s", got.digest)
	}
	f.pinned = []string{first, second}
	f.want(t, second, true)
}
