package ask

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// ApplyOptions say which profiles become the active ones, and where.
type ApplyOptions struct {
	Of       deployed.Choice
	Folder   string // of the profiles; empty with Previous or Digest
	Previous bool   // the version before the active one
	Digest   string // a version that was active before, by the beginning of its digest
	Yes      bool   // do not ask
	Force    bool   // although a check fails
}

func (o ApplyOptions) check() error {
	ways := 0
	for _, isChosen := range []bool{o.Folder != "", o.Previous, o.Digest != ""} {
		if isChosen {
			ways++
		}
	}
	if ways != 1 {
		return errors.New("name a folder of profiles, or a version that was active before: --previous, or --digest <its beginning>")
	}
	return nil
}

// applying is one run of Apply.
type applying struct {
	asking
	ApplyOptions
	store    deployed.ProfileStore
	versions ledger.ProfileVersions
}

// Apply rehearses profiles and, once the operator agrees, makes them the active ones. It returns the exit status: 0 if they are the active
// ones, 1 if they are not because of a failed check or of the operator's answer, 2 with an error if the command itself failed.
func Apply(ctx context.Context, o ApplyOptions, to Streams) (int, error) {
	if err := o.check(); err != nil {
		return broken, err
	}
	found, err := o.Of.Find(ctx)
	if err != nil {
		return broken, err
	}
	store, err := found.ProfileStore()
	if err != nil {
		return broken, err
	}
	a := applying{asking: asking{function: newFunction(found), Streams: to}, ApplyOptions: o, store: store}
	if a.versions, err = store.Ledger.ProfileVersions(ctx); err != nil {
		return broken, err
	}
	b, err := a.wanted(ctx)
	if err != nil {
		return broken, err
	}
	if _, err := grant.LoadBy(b.Files, store.Rules); err != nil && o.Folder != "" { // a former version may break a rule that is new
		return undone, fmt.Errorf("the profiles are refused, and nothing was activated: %w", err)
	}
	if store.Uses() == deployed.Active && b.Digest == a.versions.Active() {
		return a.restore(ctx, b)
	}
	if status, err := a.compare(ctx, b); err != nil || status != done {
		return status, err
	}
	return a.activate(ctx, b)
}

// restore writes the bundle of the active version again if the table has none, or another.
func (a applying) restore(ctx context.Context, b bundle.Bundle) (int, error) {
	if _, err := a.store.Bundle(ctx, b.Digest); err != nil {
		if err := a.store.Ledger.PutBundle(ctx, b.Digest, b.Packed); err != nil {
			return broken, err
		}
		fmt.Fprintf(a.Out, "the files of the active profiles were written again: %s\n", text.Lines(err.Error()))
	}
	fmt.Fprintf(a.Out, "the profiles %s are the active ones already\n", bundle.Short(b.Digest))
	return done, nil
}

// wanted returns the bundle that the options name.
func (a applying) wanted(ctx context.Context) (bundle.Bundle, error) {
	if a.Folder != "" {
		return pack(a.Folder)
	}
	digest, err := a.former()
	if err != nil {
		return bundle.Bundle{}, err
	}
	return a.store.Bundle(ctx, digest)
}

// former returns the digest of the former version that the options name.
func (a applying) former() (string, error) {
	found := ""
	for _, v := range a.versions.Versions {
		switch {
		case v.Digest == found, a.Previous && v.Digest == a.versions.Active(), !strings.HasPrefix(v.Digest, a.Digest):
			continue
		case found != "" && a.Previous:
			return found, nil
		case found != "":
			return "", fmt.Errorf("--digest %s: several versions begin so: write more of it", a.Digest)
		}
		found = v.Digest
	}
	if found == "" {
		return "", fmt.Errorf("no such version was active: vault-ec2 profiles %s lists them", a.Of.Flag())
	}
	return found, nil
}

// compare prints what the profiles change, and returns done if they may become the active ones.
func (a applying) compare(ctx context.Context, b bundle.Bundle) (int, error) {
	r, err := a.rehearse(ctx, b)
	if err != nil && !a.Force {
		return broken, fmt.Errorf("nothing was activated, since it is unknown what would change (--force activates all the same): %w", err)
	}
	if err != nil {
		fmt.Fprintf(a.Progress, "it is unknown what changes: %s\n", text.Lines(err.Error()))
		return done, nil
	}
	if err := r.print(a.Out); err != nil {
		return broken, fmt.Errorf("printing the rehearsal: %w", err)
	}
	if (r.isUnsure() || r.bars) && !a.Force {
		return undone, errors.New("nothing was activated: correct the above (profiles with a new path in Vault need vault-ec2 setup --templates-dir <folder> first), or use --force")
	}
	return done, nil
}

// activate asks the operator, and makes the bundle the active one.
func (a applying) activate(ctx context.Context, b bundle.Bundle) (int, error) {
	if !a.Yes {
		answer, err := a.typed(fmt.Sprintf("\nMake the profiles %s the active ones? Type yes: ", bundle.Short(b.Digest)))
		if err != nil {
			return broken, err
		}
		if answer != "yes" {
			return undone, errors.New("nothing was activated")
		}
	}
	by, err := a.store.Caller(ctx)
	if err != nil {
		return broken, err
	}
	if err := a.store.Ledger.PutBundle(ctx, b.Digest, b.Packed); err != nil {
		return broken, err
	}
	next := ledger.ProfileVersion{Digest: b.Digest, At: time.Now().UTC().Truncate(time.Second), By: by}
	err = a.store.Ledger.Activate(ctx, a.versions, next)
	if errors.Is(err, ledger.ErrChanged) {
		return undone, errors.New("another version was activated meanwhile, and this one was not: run the command again")
	}
	if err != nil {
		return broken, err
	}
	a.printNext(b)
	return done, nil
}

// printNext says from when on the profiles are used, and how they are taken back.
func (a applying) printNext(b bundle.Bundle) {
	switch uses := a.store.Uses(); uses {
	case deployed.Active:
		fmt.Fprintf(a.Out, "\nthe profiles %[1]s are active, and the functions follow within ten seconds\n"+
			"to bring running instances to them now: vault-ec2 reconcile %[2]s --mode correct\nto take them back: vault-ec2 apply %[2]s --previous\n", bundle.Short(b.Digest), a.Of.Flag())
	case deployed.BuiltIn:
		fmt.Fprintf(a.Out, "\nthe profiles %s are active, but the functions use their built-in ones: update the stack with Profiles=active\n", bundle.Short(b.Digest))
	default:
		former, _, _ := strings.Cut(uses, ",")
		fmt.Fprintf(a.Out, "\nthe profiles are in the table, but the functions use pinned ones: update the stack with Profiles=%s,%s\n", b.Digest, former)
	}
}
