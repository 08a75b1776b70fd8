// Command lab runs the lab: `lab demo` shows an instance's life and checks it, `lab up` keeps the lab running, `lab validate`
// checks the templates, `lab soak` launches and terminates a fleet while it injects faults, `lab race` measures first logins,
// `lab matrix` runs the integration tests on several versions of Vault, `lab dashboard` records and draws the scenes of the dashboard's pictures.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/demo"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// root is the repository's root, relative to infra/lab, where make runs this command.
var root = filepath.Join("..", "..") //nolint:gochecknoglobals // never changes

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	commands := map[string]func(context.Context) error{"demo": runDemo, "up": runUp, "validate": validate, "soak": runSoak, "race": runRace, "matrix": runMatrix, "dashboard": runDashboard}
	withArguments := len(os.Args) > 1 && slices.Contains([]string{"soak", "matrix", "dashboard"}, os.Args[1])
	if len(os.Args) < 2 || (len(os.Args) > 2 && !withArguments) || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: lab demo|up|validate|race|matrix [version or path]...|dashboard [-redraw] [scene]...|soak [-for 30m] [-instances 500] [-seed n] [-cluster]")
		os.Exit(2) //nolint:gocritic // stop only unregisters the signal
	}
	if err := commands[os.Args[1]](ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// python returns a workspace and an interpreter that has moto and the SAM translator.
func python(ctx context.Context) (w *parts.Workspace, interpreter string, err error) {
	if w, err = parts.NewWorkspace(root, "", progress); err != nil {
		return nil, "", err
	}
	interpreter, err = parts.Python(ctx, w)
	return w, interpreter, err
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...) }

// options returns the options that all commands share.
func options() lab.Options {
	return lab.Options{RepoRoot: root, Progress: progress, Parameters: lab.Parameters(), SetupVault: lab.SetupVault}
}

// in starts a world, calls do with it, and closes it.
func in(ctx context.Context, o lab.Options, do func(*lab.World) error) error {
	begun := time.Now()
	w, err := lab.Start(ctx, o)
	if err != nil {
		return err
	}
	progress("up after %.1f s; logs in %s", time.Since(begun).Seconds(), w.RunDir)
	return errors.Join(do(w), w.Close())
}

func runDemo(ctx context.Context) error {
	info, err := os.Stdout.Stat()
	colour := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
	o := options()
	if o.MoreProfiles, err = demo.Profiles(); err != nil {
		return err
	}
	return in(ctx, o, func(w *lab.World) error { return demo.Run(ctx, w, os.Stdout, colour) })
}
