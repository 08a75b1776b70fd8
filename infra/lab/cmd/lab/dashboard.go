package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/dashboard"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/dashboard/scenes"
)

// runDashboard records the scenes of the dashboard's pictures, all or those that are named, and draws all. With -redraw it records
// nothing.
func runDashboard(ctx context.Context) error {
	flags := flag.NewFlagSet("lab dashboard", flag.ExitOnError)
	redraw := flags.Bool("redraw", false, "only draw the recorded scenes")
	if err := flags.Parse(os.Args[2:]); err != nil {
		return err
	}
	recordings := filepath.Join("dashboard", "testdata")
	if !*redraw {
		o := options()
		o.VaultFaultTap, o.Parameters = true, scenes.Parameters()
		if err := in(ctx, o, func(w *lab.World) error { return scenes.Record(ctx, w, recordings, flags.Args()...) }); err != nil {
			return err
		}
	}
	_, interpreter, err := python(ctx)
	if err != nil {
		return err
	}
	d, err := dashboard.OfTemplate(ctx, interpreter, filepath.Join(root, "template.yaml"))
	if err != nil {
		return err
	}
	return dashboard.WriteAll(d, recordings, filepath.Join(root, "docs", "dashboard"))
}
