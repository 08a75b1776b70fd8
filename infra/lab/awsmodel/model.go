package awsmodel

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Models are the models of AWS's services in one installation of botocore.
type Models struct {
	folder string
	loaded map[string]*Model
}

// Find returns the models of the botocore that a Python interpreter has.
func Find(ctx context.Context, python string) (*Models, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, "-c", "import botocore, os; print(os.path.join(os.path.dirname(botocore.__file__), 'data'))").Output()
	if err != nil {
		return nil, fmt.Errorf("finding botocore's models with %s: %w", python, err)
	}
	return &Models{folder: strings.TrimSpace(string(out)), loaded: map[string]*Model{}}, nil
}

// Of returns the latest model of a service, by botocore's name of it, such as events for EventBridge.
func (m *Models) Of(service string) (*Model, error) {
	if known := m.loaded[service]; known != nil {
		return known, nil
	}
	versions, err := os.ReadDir(filepath.Join(m.folder, service))
	if service == "" || err != nil || len(versions) == 0 {
		return nil, fmt.Errorf("botocore has no model of %q: %w", service, err)
	}
	latest := slices.MaxFunc(versions, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }).Name()
	text, err := content(filepath.Join(m.folder, service, latest, "service-2.json"))
	if err != nil {
		return nil, fmt.Errorf("reading the model of %s: %w", service, err)
	}
	model := &Model{}
	if err := json.Unmarshal(text, model); err != nil {
		return nil, fmt.Errorf("reading the model of %s: %w", service, err)
	}
	m.loaded[service] = model
	return model, nil
}

// content returns the content of a file, or of its compressed form.
func content(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return text, err
	}
	f, err := os.Open(file + ".gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unpressed, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(unpressed)
}

// Model is a service's operations and their shapes, in botocore's form.
// https://github.com/boto/botocore/blob/develop/botocore/model.py
type Model struct {
	Metadata struct {
		Protocol string
	}
	Operations map[string]struct {
		Input  shapeRef
		Errors []shapeRef
	}
	Shapes map[string]*shape
}

// shapeRef names a shape where it is used, with the names that the protocol gives it there.
type shapeRef struct {
	Shape        string
	LocationName string
	QueryName    string
	Flattened    bool
}

type shape struct {
	Type       string
	Required   []string
	Members    map[string]shapeRef
	Member     shapeRef // of a list
	Key, Value shapeRef // of a map
	Flattened  bool
	Min, Max   *float64
	Pattern    string
	Enum       []string
	Union      bool
	Error      struct{ Code string }
}

// Errors returns the codes of the errors that the model names for an operation, sorted. Every operation may answer AWS's common errors
// too, and EC2's model names none.
func (m *Model) Errors(operation string) []string {
	codes := map[string]bool{}
	for _, e := range m.Operations[operation].Errors {
		code := m.Shapes[e.Shape].Error.Code
		if code == "" {
			code = e.Shape
		}
		codes[code] = true
	}
	return slices.Sorted(maps.Keys(codes))
}
