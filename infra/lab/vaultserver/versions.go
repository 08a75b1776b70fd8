package vaultserver

import "slices"

// Version is a version of Vault that the lab can build from its Go module.
type Version struct {
	Number string // as Vault reports it, "1.21.4"
	// SDK is the published version of github.com/hashicorp/vault/sdk that the server compiles with. Vault uses the sdk of its
	// own tree, which its module does not contain.
	SDK string
	// API is the version of github.com/hashicorp/vault/api that it compiles with, for the same reason; empty: as in its go.mod.
	API string
	// Whole reports that Vault had no build tag `minimal`, so that the plugins of all clouds are built too.
	Whole bool
	// Edits adapt the server to the sdk where no published one fits.
	Edits []Edit
}

// Edit replaces a text, which must occur, in a file of Vault's module.
type Edit struct{ File, Old, New string }

// Versions returns the versions that `make matrix` tries, the default first. Each is the newest patch of its minor version
// that the Go module proxy serves.
func Versions() []Version {
	return []Version{
		{Number: "1.21.4", SDK: "0.21.0", Edits: []Edit{
			// The sdk of its own tree returns the name of a restored transit key, for the server's events.
			{"builtin/logical/transit/path_restore.go", "restoredKeyName, err := b.lm.RestorePolicy(", "restoredKeyName, err := keyName, b.lm.RestorePolicy("},
			// The sdk of its own tree does not pass the flag's name to activation functions.
			{"vault/identity_store_util.go", "activateDeduplication(ctx context.Context, req *logical.Request) error", "activateDeduplication(ctx context.Context, req *logical.Request, _ string) error"},
			{"vault/logical_system_activation_flags.go", "ActivationFunc(ctx, nil)", `ActivationFunc(ctx, nil, "")`},
		}},
		{Number: "1.20.4", SDK: "0.19.0", API: "1.22.0", Edits: []Edit{
			// The published sdk asks for a method and an argument more, and knows no post-quantum keys, which only Enterprise makes.
			{"vault/dynamic_system_view.go", "func (d dynamicSystemView) ClusterID(", `func (d dynamicSystemView) GetRotationInformation(context.Context, *rotation.RotationInfoRequest) (*rotation.RotationInfoResponse, error) {
	return nil, fmt.Errorf("no rotation jobs")
}

func (d dynamicSystemView) ClusterID(`},
			{"plugins/database/mysql/connection_producer.go", "GetCloudSQLAuthOptions(credentials, false)", "GetCloudSQLAuthOptions(credentials, false, false)"},
			{"builtin/logical/transit/backend.go", "p.Type.IsPQC()", "false"},
			{"builtin/logical/transit/path_keys.go", "polReq.KeyType.IsPQC()", "false"},
		}},
		{Number: "1.19.5", SDK: "0.17.0"},
		{Number: "1.18.5", SDK: "0.15.0", API: "1.16.0", Edits: []Edit{
			// The sdk of its own tree has no rotation jobs yet, which only Enterprise runs.
			{"vault/dynamic_system_view.go", "\t\"github.com/hashicorp/vault/sdk/logical\"\n", "\t\"github.com/hashicorp/vault/sdk/logical\"\n\t\"github.com/hashicorp/vault/sdk/rotation\"\n"},
			{"vault/dynamic_system_view.go", "func (d dynamicSystemView) ClusterID(", `func (d dynamicSystemView) RegisterRotationJob(context.Context, *rotation.RotationJobConfigureRequest) (string, error) {
	return "", fmt.Errorf("no rotation jobs")
}

func (d dynamicSystemView) DeregisterRotationJob(context.Context, *rotation.RotationJobDeregisterRequest) error {
	return fmt.Errorf("no rotation jobs")
}

func (d dynamicSystemView) ClusterID(`},
		}},
		{Number: "1.17.6", SDK: "0.13.0", Whole: true},
		{Number: "1.16.3", SDK: "0.12.0", Whole: true},
	}
}

// versionNumbered returns the version with a number, and reports whether the lab can build it.
func versionNumbered(number string) (Version, bool) {
	all := Versions()
	n := slices.IndexFunc(all, func(v Version) bool { return v.Number == number })
	if n < 0 {
		return Version{}, false
	}
	return all[n], true
}
