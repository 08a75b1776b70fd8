package instance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// The calls of this package, as functions and not clients: text/template looks methods up by name, so the linker keeps every
// method of every type that is converted to an interface, and the EC2 client alone has over 700. See
// docs/decisions/binary-size.md.
type (
	describeInstances  func(context.Context, *ec2.DescribeInstancesInput, ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error)
	getInstanceProfile func(context.Context, *iam.GetInstanceProfileInput, ...func(*iam.Options)) (*iam.GetInstanceProfileOutput, error)
	getCallerIdentity  func(context.Context, *sts.GetCallerIdentityInput, ...func(*sts.Options)) (*sts.GetCallerIdentityOutput, error)
	assumeRole         func(context.Context, *sts.AssumeRoleInput, ...func(*sts.Options)) (*sts.AssumeRoleOutput, error)
)

// AssumeRole implements stscreds.AssumeRoleAPIClient.
func (f assumeRole) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput, options ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	return f(ctx, in, options...)
}

// clients makes and keeps the credentials and clients for each account and region.
type clients struct {
	options        Options
	callerIdentity getCallerIdentity
	assume         assumeRole

	mu       sync.Mutex
	own      arn.ARN // the function's own identity; zero until STS has answered
	accounts map[string]aws.CredentialsProvider
	ec2s     *ByPlace[describeInstances]
}

func newClients(o Options) *clients {
	client := sts.NewFromConfig(o.Config)
	c := &clients{
		options:        o,
		callerIdentity: client.GetCallerIdentity,
		assume:         client.AssumeRole,
		accounts:       map[string]aws.CredentialsProvider{},
	}
	c.ec2s = NewByPlace(c.config, func(config aws.Config) describeInstances { return ec2.NewFromConfig(config).DescribeInstances })
	return c
}

func (c *clients) iam(ctx context.Context, account string) (getInstanceProfile, error) {
	config, err := c.config(ctx, facts.Place{Account: account, Region: c.options.Config.Region})
	if err != nil {
		return nil, err
	}
	return iam.NewFromConfig(config).GetInstanceProfile, nil
}

// Config returns the AWS configuration for calls in a place: with the function's own credentials in its own account, and the
// member role's in any other. It fails, with kind fault.Refuse, for an account that is not allowed.
func (l *Lookup) Config(ctx context.Context, p facts.Place) (aws.Config, error) {
	return l.clients.config(ctx, p)
}

// OwnAccount returns the function's own account.
func (l *Lookup) OwnAccount(ctx context.Context) (string, error) {
	own, err := l.clients.identity(ctx)
	return own.AccountID, err
}

func (c *clients) config(ctx context.Context, p facts.Place) (aws.Config, error) {
	credentials, err := c.credentials(ctx, p.Account)
	if err != nil {
		return aws.Config{}, err
	}
	config := c.options.Config.Copy()
	config.Credentials, config.Region = credentials, p.Region
	return config, nil
}

// credentials returns the function's own credentials for its own account, and the member role's for any other.
func (c *clients) credentials(ctx context.Context, account string) (aws.CredentialsProvider, error) {
	own, err := c.identity(ctx)
	if err != nil {
		return nil, err
	}
	if account == own.AccountID {
		return c.options.Config.Credentials, nil
	}
	if isAllowed := c.options.AnyAccount || slices.Contains(c.options.Accounts, account); !isAllowed {
		return nil, fault.Refusef("account %s is neither the function's own (%s) nor one of ALLOWED_ACCOUNTS: add it, or stop forwarding that account's events", account, own.AccountID)
	}
	if c.options.MemberRole == "" {
		return nil, fault.Refusef("account %s is not the function's own (%s) and MEMBER_ROLE_NAME is not set: set it to a role that exists there, or stop forwarding that account's events", account, own.AccountID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.accounts[account] == nil {
		role := arn.ARN{Partition: own.Partition, Service: "iam", AccountID: account, Resource: "role/" + strings.TrimPrefix(c.options.MemberRole, "/")}
		c.accounts[account] = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(c.assume, role.String(), func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = "vault-ec2-provisioner"
			if c.options.ExternalID != "" {
				o.ExternalID = aws.String(c.options.ExternalID)
			}
		}), func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = time.Minute })
	}
	return c.accounts[account], nil
}

// identity returns the ARN of the function's role. It asks STS once; the call needs no permission.
func (c *clients) identity(ctx context.Context) (arn.ARN, error) {
	c.mu.Lock()
	own := c.own
	c.mu.Unlock()
	if own.AccountID != "" {
		return own, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.callerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return arn.ARN{}, fmt.Errorf("asking STS for the function's own account: %w", err)
	}
	own, err = arn.Parse(aws.ToString(answer.Arn))
	if err != nil {
		return arn.ARN{}, fmt.Errorf("asking STS for the function's own account: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = own
	return own, nil
}
