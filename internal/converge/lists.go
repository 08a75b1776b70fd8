package converge

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

const (
	// namesPerLook is the number of names for which a list takes Vault as long as the read of one absent path. Measured on 1.21.4 with
	// 1,000 to 50,000 names in a folder: 230 to 830.
	namesPerLook = 350
	// fewestLooks is the number of reads from which on a folder of unknown length is listed.
	fewestLooks = 8
	// failureTime is how long a folder is not listed again after an outage.
	failureTime = 10 * time.Second
)

// Lists lists folders of Vault for batches of first grants: one complete list shows which paths in it are absent, where it costs Vault
// less than their reads. See docs/decisions/batches.md. It remembers how long the folders are, and is safe for concurrent use.
type Lists struct {
	// List returns all names in a folder, or fails.
	List func(ctx context.Context, folder string) ([]string, error)
	Log  *slog.Logger
	Now  func() time.Time

	mu      sync.Mutex
	folders map[string]folder // as last listed
}

// folder is the last list of a folder.
type folder struct {
	names   int
	notTill time.Time // when it may be listed again after a failure; zero for a list that succeeded
}

// pays reports whether a list of a folder costs less than a number of reads of absent paths in it.
func (l *Lists) pays(path string, looks int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, isKnown := l.folders[path]
	switch {
	case !isKnown:
		return looks >= fewestLooks
	case !f.notTill.IsZero():
		return looks >= fewestLooks && l.Now().After(f.notTill)
	}
	return 1+f.names/namesPerLook < looks
}

// names returns the names in a folder, in lower case, since Vault holds policies and auth roles by such names. It returns nil for a
// folder that cannot be listed: its paths are read.
func (l *Lists) names(ctx context.Context, path string) map[string]bool {
	all, err := l.List(ctx, path)
	f := folder{names: len(all)}
	names := make(map[string]bool, len(all))
	for _, name := range all {
		names[strings.ToLower(name)] = true
	}
	if err != nil {
		wait := failureTime
		if fault.KindOf(err) != fault.Retry { // a right is missing
			wait = settingTime
		}
		l.Log.WarnContext(ctx, "a folder of Vault could not be listed, and each path in it is read instead; if the right is missing, run vault-ec2 setup of this version", observe.KeyPath, path, observe.KeyError, err)
		f.notTill, names = l.Now().Round(0).Add(wait), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.folders == nil {
		l.folders = map[string]folder{}
	}
	l.folders[path] = f
	return names
}

// lacks reports whether a list that was asked for during the batch, and a moment ago, shows that there is no object at a path. looks is
// the number of instances of the batch that may ask about the folder. It returns false where a list would not pay or is not to be had.
func (b *Batch) lacks(ctx context.Context, path string, looks int) bool {
	at, l := grant.FolderOf(path), b.converger.Lists
	now := b.converger.Now()
	if !b.lists.has(at, now) && !l.pays(at, looks) {
		return false
	}
	a, _ := b.lists.get(ctx, at, now, func(ctx context.Context) (map[string]bool, time.Duration, error) {
		return l.names(ctx, at), momentTime, nil
	})
	isOld := b.converger.Now().Round(0).Sub(a.asked) > momentTime
	return a.value != nil && !isOld && !a.value[strings.ToLower(path[len(at)+1:])]
}
