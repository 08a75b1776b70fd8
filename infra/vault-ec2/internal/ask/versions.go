package ask

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
)

// version is a version of the profiles in the output.
type version struct {
	Digest      string    `json:"digest"`
	ActivatedAt time.Time `json:"activatedAt"`
	ActivatedBy string    `json:"activatedBy"`
	Active      bool      `json:"active"`
}

// Versions prints the versions of the profiles that were active, the newest first, and returns the exit status.
func Versions(ctx context.Context, of deployed.Choice, isJSON bool, to Streams) (int, error) {
	found, err := of.Find(ctx)
	if err != nil {
		return broken, err
	}
	store, err := found.ProfileStore()
	if err != nil {
		return broken, err
	}
	v, err := store.Ledger.ProfileVersions(ctx)
	if err != nil {
		return broken, err
	}
	rows := []version{}
	for i, known := range v.Versions {
		rows = append(rows, version{Digest: known.Digest, ActivatedAt: known.At, ActivatedBy: known.By, Active: i == 0})
	}
	if isJSON {
		list, err := json.MarshalIndent(rows, "", "  ")
		if err != nil {
			return broken, fmt.Errorf("printing the versions: %w", err)
		}
		return done, text.PrintJSON(to.Out, list)
	}
	if len(rows) == 0 {
		fmt.Fprintln(to.Out, "no profiles were activated")
		return done, nil
	}
	w := tabwriter.NewWriter(to.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROFILES\tACTIVATED\tBY\t")
	for _, r := range rows {
		state := ""
		if r.Active {
			state = "active"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", text.Printable(bundle.Short(r.Digest)), r.ActivatedAt.Format(time.RFC3339), text.Printable(r.ActivatedBy), state)
	}
	return done, w.Flush()
}
