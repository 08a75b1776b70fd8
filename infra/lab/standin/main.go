// Command standin is a Terraform provider that has the schemas of a real one and does nothing else: terraform validate and plan
// check a configuration against them where the real provider cannot be downloaded. Its file's name says which provider it is
// (terraform-provider-aws_…), and STANDIN_SCHEMAS is the file with the schemas, as terraform providers schema -json prints them.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// block is a block of terraform providers schema -json.
// https://developer.hashicorp.com/terraform/cli/commands/providers/schema
type block struct {
	Attributes map[string]struct {
		Type                         json.RawMessage
		Required, Optional, Computed bool
	}
	BlockTypes map[string]struct {
		NestingMode string `json:"nesting_mode"`
		Block       block
		MinItems    int64 `json:"min_items"`
	} `json:"block_types"`
}

type schemas struct {
	Provider  struct{ Block block }
	Resources map[string]struct{ Block block } `json:"resource_schemas"`
}

var nesting = map[string]tfprotov5.SchemaNestedBlockNestingMode{
	"single": tfprotov5.SchemaNestedBlockNestingModeSingle, "list": tfprotov5.SchemaNestedBlockNestingModeList, "set": tfprotov5.SchemaNestedBlockNestingModeSet,
}

var simple = map[string]tftypes.Type{"string": tftypes.String, "number": tftypes.Number, "bool": tftypes.Bool}

// typeOf returns the type of an attribute: "string", or ["list", "string"]. It fails on other forms, which no attribute of the
// file has.
func typeOf(text json.RawMessage) (tftypes.Type, error) {
	var name string
	if json.Unmarshal(text, &name) == nil && simple[name] != nil {
		return simple[name], nil
	}
	var parts []string
	if json.Unmarshal(text, &parts) == nil && len(parts) == 2 && simple[parts[1]] != nil {
		switch element := simple[parts[1]]; parts[0] {
		case "list":
			return tftypes.List{ElementType: element}, nil
		case "set":
			return tftypes.Set{ElementType: element}, nil
		case "map":
			return tftypes.Map{ElementType: element}, nil
		}
	}
	return nil, fmt.Errorf("unknown type %s", text)
}

func (b block) schema() (*tfprotov5.SchemaBlock, error) {
	out := &tfprotov5.SchemaBlock{}
	for name, a := range b.Attributes {
		kind, err := typeOf(a.Type)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", name, err)
		}
		out.Attributes = append(out.Attributes, &tfprotov5.SchemaAttribute{Name: name, Type: kind, Required: a.Required, Optional: a.Optional, Computed: a.Computed})
	}
	for name, b := range b.BlockTypes {
		inner, err := b.Block.schema()
		if err != nil {
			return nil, fmt.Errorf("block %s: %w", name, err)
		}
		out.BlockTypes = append(out.BlockTypes, &tfprotov5.SchemaNestedBlock{TypeName: name, Nesting: nesting[b.NestingMode], Block: inner, MinItems: b.MinItems})
	}
	return out, nil
}

// server answers what terraform validate and plan ask.
type server struct {
	tfprotov5.ProviderServer

	provider  *tfprotov5.Schema
	resources map[string]*tfprotov5.Schema
}

func (s *server) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	return &tfprotov5.GetProviderSchemaResponse{Provider: s.provider, ResourceSchemas: s.resources}, nil
}

func (s *server) GetResourceIdentitySchemas(context.Context, *tfprotov5.GetResourceIdentitySchemasRequest) (*tfprotov5.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov5.GetResourceIdentitySchemasResponse{}, nil
}

func (s *server) PrepareProviderConfig(_ context.Context, r *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (s *server) ConfigureProvider(context.Context, *tfprotov5.ConfigureProviderRequest) (*tfprotov5.ConfigureProviderResponse, error) {
	return &tfprotov5.ConfigureProviderResponse{}, nil
}

func (s *server) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

func (s *server) ValidateResourceTypeConfig(context.Context, *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

// PlanResourceChange plans each computed attribute that is not given as known after apply.
func (s *server) PlanResourceChange(_ context.Context, r *tfprotov5.PlanResourceChangeRequest) (*tfprotov5.PlanResourceChangeResponse, error) {
	schema := s.resources[r.TypeName]
	proposed, err := r.ProposedNewState.Unmarshal(schema.ValueType())
	if err != nil {
		return nil, err
	}
	planned, err := tftypes.Transform(proposed, func(path *tftypes.AttributePath, v tftypes.Value) (tftypes.Value, error) {
		steps := path.Steps()
		if len(steps) != 1 || !v.IsNull() {
			return v, nil
		}
		for _, a := range schema.Block.Attributes {
			if a.Computed && steps[0] == tftypes.AttributeName(a.Name) {
				return tftypes.NewValue(v.Type(), tftypes.UnknownValue), nil
			}
		}
		return v, nil
	})
	if err != nil {
		return nil, err
	}
	state, err := tfprotov5.NewDynamicValue(schema.ValueType(), planned)
	return &tfprotov5.PlanResourceChangeResponse{PlannedState: &state}, err
}

func read() (*server, string, error) {
	name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(os.Args[0]), "terraform-provider-"), "_")
	name = "registry.terraform.io/hashicorp/" + name
	text, err := os.ReadFile(os.Getenv("STANDIN_SCHEMAS"))
	if err != nil {
		return nil, "", err
	}
	var all struct {
		Providers map[string]schemas `json:"provider_schemas"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, "", err
	}
	own, is := all.Providers[name]
	if !is {
		return nil, "", fmt.Errorf("no schemas of %s", name)
	}
	out := &server{resources: map[string]*tfprotov5.Schema{}}
	top, err := own.Provider.Block.schema()
	if err != nil {
		return nil, "", err
	}
	out.provider = &tfprotov5.Schema{Block: top}
	for kind, r := range own.Resources {
		b, err := r.Block.schema()
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", kind, err)
		}
		out.resources[kind] = &tfprotov5.Schema{Block: b}
	}
	return out, name, nil
}

func main() {
	s, name, err := read()
	if err == nil {
		err = tf5server.Serve(name, func() tfprotov5.ProviderServer { return s })
	}
	if err != nil {
		log.Fatal(err)
	}
}
