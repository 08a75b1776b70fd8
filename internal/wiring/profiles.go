package wiring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// profilesKept is how long provision and deprovision use profiles before they ask the ledger for the active version again.
const profilesKept = 10 * time.Second

// errNoProfiles says that the profiles come from the ledger, and that none was activated.
var errNoProfiles = errors.New("no profiles are active in the ledger: run vault-ec2 apply with the folder of profiles")

// profileSet is a set of profiles.
type profileSet struct {
	set    *grant.Set
	digest string
	// refused says why this set is used and not the one that is wanted; nil if it is the one.
	refused error
}

func (s profileSet) equals(o profileSet) bool {
	return s.set == o.set && (s.refused == nil) == (o.refused == nil) && (s.refused == nil || s.refused.Error() == o.refused.Error())
}

// profileSource returns the profiles to use now.
type profileSource interface {
	profiles(ctx context.Context) (profileSet, error)
}

// fixed are profiles that do not change while the function runs.
type fixed profileSet

func (f fixed) profiles(context.Context) (profileSet, error) { return profileSet(f), nil }

// profileSource returns the source that the settings name. It loads profiles that are files of the function. kept is how long those of the
// ledger are used before it is asked again.
func (b *base) profileSource(kept time.Duration) (profileSource, error) {
	if s := b.settings.Profiles; s.FromLedger {
		return &activated{store: b.ledger, pinned: s.Digests, kept: kept, load: b.load, log: b.log, now: time.Now}, nil
	}
	var files fs.FS = templates.FS
	if b.settings.TemplatesDir != "" {
		files = os.DirFS(b.settings.TemplatesDir)
	}
	set, err := b.load(files)
	if err != nil {
		return nil, err
	}
	return fixed{set: set}, nil
}

// load loads profiles by the settings' rules. It also loads a profile that breaks a rule which an earlier version did not have, since
// instances may hold grants of it.
func (b *base) load(files fs.FS) (*grant.Set, error) {
	s := b.settings
	set, err := grant.LoadDeployed(files, grant.Rules{MaxTTL: s.MaxCertificateTTL, RolePrefix: rolePrefix(s.Vault.LoginRole)})
	if err != nil {
		return nil, err
	}
	for _, p := range set.Profiles {
		if s.ReadyTag != "" && p.UsesTag(s.ReadyTag) {
			return nil, fmt.Errorf("READY_TAG: profile %s uses the tag %s: a tag that the functions write must not decide what they grant; choose another key", p.Name, s.ReadyTag)
		}
		if p.Barred != nil {
			b.log.Error("a profile breaks a rule: nothing new is granted by it, and existing grants stay", observe.KeyProfile, p.Name, observe.KeyError, p.Barred)
		}
	}
	return set, nil
}

// profileStore has the versions of the profiles that were activated.
type profileStore interface {
	ProfileVersions(ctx context.Context) (ledger.ProfileVersions, error)
	// Bundle returns a packed bundle; nil if there is none.
	Bundle(ctx context.Context, digest string) ([]byte, error)
}

// activated follows the profiles that are active in the ledger. Profiles that do not load never replace those that do: the function
// goes on with the present ones or, after its start, with the newest version before that loads.
type activated struct {
	store profileStore
	// pinned are the digests that may be used, the preferred first; none: whatever was activated.
	pinned []string
	kept   time.Duration // until the ledger is asked again
	load   func(fs.FS) (*grant.Set, error)
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	current profileSet // zero: none was loaded yet
	asked   time.Time
}

func (a *activated) profiles(ctx context.Context) (profileSet, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now().Round(0) // by the wall clock, which goes on while a sandbox is frozen
	if age := now.Sub(a.asked); a.current.set != nil && age >= 0 && age < a.kept {
		return a.current, nil
	}
	refused, err := a.follow(ctx)
	if err == nil && a.current.set == nil {
		err = refused
	}
	if a.current.set == nil {
		return profileSet{}, err
	}
	a.asked = now
	if err != nil { // it says nothing about the profiles
		a.log.WarnContext(ctx, "the active profiles could not be read, and the present ones go on", observe.KeyProfiles, bundle.Short(a.current.digest), observe.KeyError, err)
		return a.current, nil
	}
	a.current.refused = refused
	if refused != nil {
		a.log.ErrorContext(ctx, "the wanted profiles are not used: these go on", observe.KeyProfiles, bundle.Short(a.current.digest), observe.KeyError, refused)
	}
	return a.current, nil
}

// follow makes the wanted profiles the current ones. refused is why it did not; err is an outage, after which nothing has changed.
func (a *activated) follow(ctx context.Context) (refused, err error) {
	wanted, err := a.wanted(ctx)
	if err != nil {
		return nil, err
	}
	if len(wanted) == 0 {
		return errNoProfiles, nil
	}
	for _, digest := range wanted {
		if a.current.set != nil && a.current.digest == digest {
			return nil, nil
		}
		packed, err := a.store.Bundle(ctx, digest)
		if err != nil { // an earlier version in its place could be one that was taken back
			return nil, err
		}
		set, err := a.open(packed, digest)
		if err == nil {
			a.current = profileSet{set: set, digest: digest}
			return refused, nil
		}
		if refused == nil {
			refused = err
		}
		if a.current.set != nil {
			return refused, nil
		}
	}
	return refused, nil
}

// wanted returns the digests of the profiles to use, the preferred first.
func (a *activated) wanted(ctx context.Context) ([]string, error) {
	if len(a.pinned) > 0 {
		return a.pinned, nil
	}
	v, err := a.store.ProfileVersions(ctx)
	if err != nil {
		return nil, err
	}
	var digests []string
	for _, version := range v.Versions {
		if !slices.Contains(digests, version.Digest) {
			digests = append(digests, version.Digest)
		}
	}
	return digests, nil
}

// open loads the bundle that the table has under a digest.
func (a *activated) open(packed []byte, digest string) (*grant.Set, error) {
	b, err := bundle.OpenAs(packed, digest)
	if err != nil {
		return nil, err
	}
	set, err := a.load(b.Files)
	if err != nil {
		return nil, fmt.Errorf("profiles %s: %w", bundle.Short(digest), err)
	}
	return set, nil
}
