package deployed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// BuiltIn is the value of the stack's parameter Profiles for profiles that are part of the functions, and Active the one for those that are
// activated in the ledger. Every other value is a list of digests.
const (
	BuiltIn = "built-in"
	Active  = "active"
)

// profileSettings are what a deployment says about its profiles.
type profileSettings struct {
	table    string
	endpoint string // of DynamoDB; empty for AWS's own
	profiles string // the parameter Profiles
	maxTTL   string // the parameter MaxCertificateTTL
	role     string // the parameter VaultLoginRole
	caller   string // the name of every caller; empty: STS has it
}

// ProfileStore is where the profiles of a deployment are activated.
type ProfileStore struct {
	Ledger *ledger.Ledger
	// Rules are those by which the deployment's functions load profiles.
	Rules    grant.Rules
	settings profileSettings
	config   aws.Config
}

func (s Stack) profileSettings() profileSettings {
	return profileSettings{
		table: s.Outputs["TableName"], profiles: s.Parameters["Profiles"], maxTTL: s.Parameters["MaxCertificateTTL"], role: s.Parameters["VaultLoginRole"],
	}
}

// ProfileStore returns the store of a stack. c is the configuration for calls to AWS.
func (s Stack) ProfileStore(c aws.Config) (ProfileStore, error) {
	return Function{Config: c, settings: s.profileSettings()}.ProfileStore()
}

// ProfileStore returns the store.
func (f Function) ProfileStore() (ProfileStore, error) {
	s := f.settings
	if s.table == "" {
		return ProfileStore{}, errors.New("the profiles are in the table of a deployment: name it with --stack <name>, or --lab for the lab of make lab")
	}
	rules := grant.DefaultRules()
	if s.maxTTL != "" {
		longest, err := time.ParseDuration(s.maxTTL)
		if err != nil {
			return ProfileStore{}, fmt.Errorf("the stack's parameter MaxCertificateTTL: %w", err)
		}
		rules.MaxTTL = longest
	}
	if s.role != "" {
		rules.RolePrefix = s.role
	}
	client := dynamodb.NewFromConfig(f.Config, func(o *dynamodb.Options) {
		if s.endpoint != "" {
			o.BaseEndpoint = &s.endpoint
		}
	})
	return ProfileStore{Ledger: ledger.New(ledger.NewAPI(client), s.table, time.Now), Rules: rules, settings: s, config: f.Config}, nil
}

// Uses returns the value of the deployment's parameter Profiles: BuiltIn, Active, or the digests of the only profiles that it uses.
func (s ProfileStore) Uses() string {
	if s.settings.profiles == "" { // the template of an earlier version
		return BuiltIn
	}
	return s.settings.profiles
}

// Present returns the profiles that the functions should use by now. ok is false where these are the built-in ones.
func (s ProfileStore) Present(ctx context.Context) (b bundle.Bundle, ok bool, err error) {
	digest, _, _ := strings.Cut(s.Uses(), ",")
	switch digest {
	case BuiltIn:
		return bundle.Bundle{}, false, nil
	case Active:
		versions, err := s.Ledger.ProfileVersions(ctx)
		if err != nil {
			return bundle.Bundle{}, false, err
		}
		if digest = versions.Active(); digest == "" {
			return bundle.Bundle{}, false, errors.New("the deployment uses profiles from its table, and none are active yet")
		}
	}
	b, err = s.Bundle(ctx, digest)
	return b, err == nil, err
}

// Bundle returns the profiles with a digest.
func (s ProfileStore) Bundle(ctx context.Context, digest string) (bundle.Bundle, error) {
	packed, err := s.Ledger.Bundle(ctx, digest)
	if err != nil {
		return bundle.Bundle{}, err
	}
	return bundle.OpenAs(packed, digest)
}

// Caller returns the ARN of the caller.
func (s ProfileStore) Caller(ctx context.Context) (string, error) {
	if s.settings.caller != "" {
		return s.settings.caller, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := sts.NewFromConfig(s.config).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", fmt.Errorf("asking STS for your own ARN, which is recorded with the version: %w", err)
	}
	return aws.ToString(out.Arn), nil
}
