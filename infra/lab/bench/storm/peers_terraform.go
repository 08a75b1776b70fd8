package storm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// terraform is Terraform with the Vault provider, whose generic endpoint takes the same fields for every kind of object.
// https://registry.terraform.io/providers/hashicorp/vault/latest/docs/resources/generic_endpoint
type terraform struct {
	peer
	program string
}

// initLimit is how long fetching the provider may take.
const initLimit = time.Minute

// terraform gives the tool, or why it cannot be had.
func (r *Rig) terraform(ctx context.Context, all recipes, n int) (tool, error) {
	program, err := exec.LookPath("terraform")
	if err != nil {
		return nil, err
	}
	t := &terraform{peer: r.peer(all, r.launch(n), "terraform"), program: program}
	if err := t.prepare(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, initLimit)
	defer cancel()
	if err := t.run(ctx, program, "init", "-input=false", "-no-color"); err != nil {
		r.opts.Progress("the Vault provider cannot be had: %v", err)
		return nil, fmt.Errorf("terraform init does not find the provider here")
	}
	return t, nil
}

// prepare writes the configuration: a resource for each object, an auth role after what it grants.
func (t *terraform) prepare() error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	resources := map[string]any{}
	for n, o := range t.objects {
		each := map[string]any{"path": o.path, "data_json": o.body, "ignore_absent_fields": true}
		if n%objects == objects-1 {
			var before []string
			for k := n - objects + 1; k < n; k++ {
				before = append(before, fmt.Sprintf("vault_generic_endpoint.o%d", k))
			}
			each["depends_on"] = before
		}
		resources[fmt.Sprint("o", n)] = each
	}
	text, err := json.Marshal(map[string]any{
		"terraform": map[string]any{"required_providers": map[string]any{"vault": map[string]string{"source": "hashicorp/vault"}}},
		"resource":  map[string]any{"vault_generic_endpoint": resources},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.dir, "main.tf.json"), text, 0o600)
}

func (t *terraform) name() string { return "Terraform" }

func (t *terraform) create(ctx context.Context) error {
	return t.run(ctx, t.program, "apply", "-auto-approve", "-input=false", "-no-color")
}

func (t *terraform) check(ctx context.Context) error {
	return t.run(ctx, t.program, "plan", "-detailed-exitcode", "-input=false", "-no-color")
}

func (t *terraform) repair(ctx context.Context) error {
	if err := t.rig.breakSome(ctx, t.fleet); err != nil {
		return err
	}
	return t.create(ctx)
}

func (t *terraform) destroy(ctx context.Context) error {
	return t.run(ctx, t.program, "destroy", "-auto-approve", "-input=false", "-no-color")
}
