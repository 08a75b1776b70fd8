package dashboard

import (
	"path/filepath"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
)

// deployed returns the dashboard and the alarms of the product's template.
func deployed(t *testing.T) Dashboard {
	t.Helper()
	d, err := OfTemplate(t.Context(), partstest.Python(t), filepath.Join("..", "..", "..", "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
