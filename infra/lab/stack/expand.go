package stack

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

//go:embed expand.py
var expandScript string

// Expand returns a SAM template as plain CloudFormation. python is the interpreter,
// which must have the SAM translator.
func Expand(ctx context.Context, python, template, region string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-", template)
	cmd.Stdin = strings.NewReader(expandScript)
	cmd.Env = append(os.Environ(), "AWS_REGION="+region)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("expanding %s: %w: %s", template, err, strings.TrimSpace(problem.String()))
	}
	var expanded map[string]any
	if err := json.Unmarshal(out.Bytes(), &expanded); err != nil {
		return nil, fmt.Errorf("reading the expansion of %s: %w", template, err)
	}
	return expanded, nil
}
