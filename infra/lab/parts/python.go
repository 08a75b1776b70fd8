package parts

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// wantedPython checks an interpreter without importing the packages, because the
// imports take seconds. It prints the real interpreter behind a shim.
const wantedPython = `
import importlib.metadata as m, sys
want = {"moto": (5, 2, 1), "aws-sam-translator": (1, 110), "cfn-lint": (1, 51), "boto3": (1, 40),
        "flask": (2,), "flask-cors": (3,), "docker": (3,), "joserfc": (0, 9), "jsonpath-ng": (1,),
        "graphql-core": (3,), "openapi-spec-validator": (0, 5), "py-partiql-parser": (0, 6)}
number = lambda part: int("".join(c for c in part if c.isdigit()) or 0)
missing = []
for name, least in want.items():
    try:
        if tuple(map(number, m.version(name).split("."))) < least: missing.append(name)
    except m.PackageNotFoundError: missing.append(name)
if missing: sys.exit("missing or too old: " + " ".join(missing))
print(sys.executable)
`

// Python returns an interpreter that has moto and the SAM translator: the python3
// on the PATH if it has both, otherwise a virtual environment in the cache, filled
// once from infra/lab/requirements.txt.
func Python(ctx context.Context, w *Workspace) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.python == "" {
		python, err := findPython(ctx, w)
		if err != nil {
			return "", err
		}
		w.python = python
	}
	return w.python, nil
}

func findPython(ctx context.Context, w *Workspace) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	onPath, err := exec.LookPath("python3")
	if err != nil {
		return "", fmt.Errorf("looking for python3 (install it, on Debian: apt-get install python3 python3-venv): %w", err)
	}
	if python, err := checkPython(ctx, onPath); err == nil {
		return python, nil
	}
	venv := filepath.Join(w.Cache, "python")
	inVenv := filepath.Join(venv, "bin", "python3")
	err = w.Locked(ctx, "python", func() error {
		if _, err := checkPython(ctx, inVenv); err == nil {
			return nil
		}
		requirements := filepath.Join(w.RepoRoot, "infra", "lab", "requirements.txt")
		return w.Slowly(ctx, "installing moto and the SAM translator into the cache (first run only)", func(ctx context.Context) error {
			if err := os.RemoveAll(venv); err != nil {
				return err
			}
			if err := oneLine(exec.CommandContext(ctx, onPath, "-m", "venv", venv)); err != nil {
				return fmt.Errorf("making a virtual environment (on Debian: apt-get install python3-venv): %w", err)
			}
			if err := oneLine(exec.CommandContext(ctx, inVenv, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements)); err != nil {
				return fmt.Errorf("installing (try by hand: python3 -m pip install -r infra/lab/requirements.txt): %w", err)
			}
			_, err := checkPython(ctx, inVenv)
			return err
		})
	})
	return inVenv, err
}

func checkPython(ctx context.Context, python string) (string, error) {
	cmd := exec.CommandContext(ctx, python, "-c", wantedPython)
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("checking %s: %w: %s", python, err, strings.TrimSpace(problem.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// oneLine runs a command. The error contains the last line of its output, where the command reports its failure.
func oneLine(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	return nil
}
