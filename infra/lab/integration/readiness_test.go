package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// waiting returns the script of docs/auto-scaling.md with which an instance waits for its tag.
func waiting(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "auto-scaling.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(page), "\nimds=")
	script, _, found := strings.Cut(after, "```")
	if !found || !strings.Contains(script, "until [") {
		t.Fatal("docs/auto-scaling.md has no script that waits for the tag")
	}
	return "imds=" + script
}

func TestReadyTag_EndsTheDocumentedWait(t *testing.T) {
	l := line(t, lab.LineOptions{Functions: []string{provision, reconcile}, Env: map[string]string{"READY_TAG": "vault-identity"}})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	metadata, err := world.Fleet.Metadata(i, fleet.MetadataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = metadata.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	script := exec.CommandContext(ctx, "sh", "-c", strings.Replace(waiting(t), "http://169.254.169.254", metadata.URL, 1))
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- script.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("want the script to wait while there is no tag, but it ended with %v", err)
	case <-time.After(time.Second):
	}
	mustBy(t, l.Functions[provision], i, "running", "provisioned")
	if err := <-ended; err != nil {
		t.Errorf("want the tag to end the wait, got %v", err)
	}
	// An instance whose event was lost is granted by reconcile and waits for the same tag.
	lost := launch(t, fleet.Spec{Role: "alice-worker"})
	if a := runReconcile(t, l.Functions[reconcile], rec.Input{Mode: rec.Correct, InstanceIDs: []string{lost.ID}}); a.Summary.Corrected != 1 {
		t.Fatalf("want the instance granted, got %+v", a)
	}
	other, err := world.Fleet.Metadata(lost, fleet.MetadataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if out, err := exec.CommandContext(ctx, "sh", "-c", strings.Replace(waiting(t), "http://169.254.169.254", other.URL, 1)).CombinedOutput(); err != nil {
		t.Errorf("want an instance granted by reconcile tagged as well, got %v: %s", err, out)
	}
	l.Taps.AWS.Reset()
	if a := bare(t, l.Functions[provision], fleet.Event(i, "running", time.Now())); a.Action != "unchanged" {
		t.Errorf("got %+v, want nothing changed", a)
	}
	for _, c := range l.Taps.AWS.Calls() {
		if c.Action == "CreateTags" {
			t.Error("an instance with the right tag was tagged again")
		}
	}
}
