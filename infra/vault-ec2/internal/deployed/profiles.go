package deployed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sts"

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
