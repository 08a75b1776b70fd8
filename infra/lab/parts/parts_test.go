package parts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func workspace(t *testing.T) *Workspace {
	t.Helper()
	w, err := NewWorkspace("../../..", "", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestMotoAndDynamoDB_AnswerAndStop(t *testing.T) {
	w := workspace(t)
	m, err := StartMoto(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Process.Stop()
	d, err := StartDynamoDBLocal(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Process.Stop()
	mustEnd(t, m.Process)
	mustEnd(t, d.Process)
}

func TestChild_EarlyEndIsReportedWithLastLines(t *testing.T) {
	w := workspace(t)
	p, err := Start(Command{Name: "a failing child", Path: "/bin/sh", Args: []string{"-c", "echo no such luck; exit 3"}, Log: w.Log("failing")})
	if err != nil {
		t.Fatal(err)
	}
	err = p.WaitReady(t.Context(), func(context.Context) error { return errors.New("not yet") })
	if !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("expected an early end with the child's last line, got: %v", err)
	}
}

func TestChild_IgnoringSIGTERMIsKilledWithGroup(t *testing.T) {
	w := workspace(t)
	p, err := Start(Command{Name: "a stubborn child", Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; echo up; sleep 60 & wait; sleep 60"}, Log: w.Log("stubborn")})
	if err != nil {
		t.Fatal(err)
	}
	err = p.WaitReady(t.Context(), func(context.Context) error {
		if strings.Contains(tail(p.LogFile()), "up") {
			return nil
		}
		return errors.New("nothing printed yet")
	})
	if err != nil {
		t.Fatal(err)
	}
	mustEnd(t, p)
}

func TestWorkspace_KeepsOnlyTheNewestEndedRuns(t *testing.T) {
	cache := t.TempDir()
	for _, name := range []string{"20200101T000000-999999991", "20200102T000000-999999991", "20200103T000000-999999991",
		"20200104T000000-999999991", "20200105T000000-999999991", "20200106T000000-999999991"} {
		if err := os.MkdirAll(filepath.Join(cache, "run", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w, err := NewWorkspace(t.TempDir(), cache, nil)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(cache, "run"))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != keptRuns+1 || entries[0].Name() != "20200102T000000-999999991" {
		t.Errorf("expected %d old runs without the oldest, and %s; seen %v", keptRuns, w.Run, entries)
	}
}

// mustEnd stops a process and checks that its whole group is gone.
func mustEnd(t *testing.T, p *Process) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Fatalf("stopping %s: %v", p.name, err)
	}
	deadline := time.Now().Add(2 * time.Second)
	for syscall.Kill(-p.PID(), 0) == nil {
		if time.Now().After(deadline) {
			t.Fatalf("%s: its process group %d still exists after Stop", p.name, p.PID())
		}
		time.Sleep(20 * time.Millisecond)
	}
}
