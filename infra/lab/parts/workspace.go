package parts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// keptRuns is the number of earlier runs' folders that are kept for their logs.
const keptRuns = 5

// Progress prints the progress of a slow step.
type Progress func(format string, args ...any)

// Workspace holds the folders of the parts: the repository with the sources, the
// cache of built and fetched programs, and the folder of this run's logs.
type Workspace struct {
	RepoRoot, Cache, Run string
	Progress             Progress

	mu     sync.Mutex
	python string // found once a run, since the check takes a moment
}

// NewWorkspace makes the cache folder (default <repoRoot>/.cache) and a new run
// folder in it, and removes old run folders. progress may be nil.
func NewWorkspace(repoRoot, cacheDir string, progress Progress) (*Workspace, error) {
	root, err := filepath.Abs(repoRoot)
	if err != nil {
		return nil, fmt.Errorf("resolving the repository's root %q: %w", repoRoot, err)
	}
	cache, err := filepath.Abs(cmp.Or(cacheDir, filepath.Join(root, ".cache")))
	if err != nil {
		return nil, fmt.Errorf("resolving the cache folder %q: %w", cacheDir, err)
	}
	if progress == nil {
		progress = func(string, ...any) {}
	}
	runs := filepath.Join(cache, "run")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder for run logs: %w", err)
	}
	if err := pruneRuns(runs); err != nil {
		return nil, fmt.Errorf("removing old run folders in %s: %w", runs, err)
	}
	run, err := newRun(runs)
	if err != nil {
		return nil, fmt.Errorf("making this run's folder in %s: %w", runs, err)
	}
	return &Workspace{RepoRoot: root, Cache: cache, Run: run, Progress: progress}, nil
}

// Log returns the path of a log file of this run.
func (w *Workspace) Log(name string) string { return filepath.Join(w.Run, name+".log") }

func newRun(runs string) (string, error) {
	base := fmt.Sprintf("%s-%d", time.Now().UTC().Format("20060102T150405"), os.Getpid())
	for n := 1; ; n++ {
		dir := filepath.Join(runs, base)
		if n > 1 {
			dir += "-" + strconv.Itoa(n)
		}
		err := os.Mkdir(dir, 0o755)
		if err == nil || !errors.Is(err, os.ErrExist) {
			return dir, err
		}
	}
}

// pruneRuns removes all but the newest run folders, and never the folder of a
// running lab. Names begin with the time, so they sort by age.
func pruneRuns(runs string) error {
	entries, err := os.ReadDir(runs)
	if err != nil {
		return err
	}
	var old []string
	for _, e := range entries {
		if e.IsDir() && !alive(e.Name()) {
			old = append(old, e.Name())
		}
	}
	slices.Sort(old)
	for _, name := range old[:max(0, len(old)-keptRuns)] {
		if err := os.RemoveAll(filepath.Join(runs, name)); err != nil {
			return err
		}
	}
	return nil
}

func alive(run string) bool {
	fields := strings.Split(run, "-")
	if len(fields) < 2 {
		return false
	}
	pid, err := strconv.Atoi(fields[1])
	return err == nil && pid > 0 && syscall.Kill(pid, 0) == nil
}

// Slowly runs a step that may take minutes and prints its progress.
func (w *Workspace) Slowly(ctx context.Context, what string, step func(context.Context) error) error {
	w.Progress("%s ...", what)
	start := time.Now()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(15 * time.Second):
				w.Progress("%s ... %s", what, time.Since(start).Round(time.Second))
			}
		}
	}()
	if err := step(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	w.Progress("%s: done after %s", what, time.Since(start).Round(100*time.Millisecond))
	return nil
}

// Locked runs a step while it holds the named lock in the cache, because test
// packages that run side by side share the cache.
func (w *Workspace) Locked(ctx context.Context, name string, step func() error) error {
	file := filepath.Join(w.Cache, name+".lock")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("opening the lock file %s: %w", file, err)
	}
	defer f.Close() // releases the lock
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return step()
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("locking %s: %w", file, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for another lab that holds %s: %w", file, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// FreePort returns a port on the loopback address that is free now.
func FreePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	defer ln.Close()
	address, err := netip.ParseAddrPort(ln.Addr().String())
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	return int(address.Port()), nil
}
