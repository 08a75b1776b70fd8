package doctor

import (
	"context"
	"errors"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// ownAccountName names the function's own account in checks if no setting names it.
const ownAccountName = "own account"

func (d Doctor) identity(ctx context.Context) finding {
	own, err := d.AWS.Account(ctx)
	switch {
	case isUnreached(err):
		return bad(d.routeTo("sts", d.Region), "%v", err)
	case err != nil:
		return bad("run the doctor again; if it stays, look at the function's role", "%v", err)
	}
	return good("the function runs in account %s", own)
}

// accounts returns the accounts of the places, without duplicates; an empty one is the function's own.
func (d Doctor) accounts() []string {
	var out []string
	for _, p := range d.Places {
		if !slices.Contains(out, p.Account) {
			out = append(out, p.Account)
		}
	}
	return out
}

func (d Doctor) placeSteps(own *step) []*step {
	if len(d.Places) == 0 {
		return []*step{{name: "places", check: func(context.Context) finding {
			return bad("set RECONCILE_ACCOUNTS and RECONCILE_REGIONS", "no account and region is configured")
		}}}
	}
	var steps []*step
	for _, account := range d.accounts() {
		name := account
		if account == "" {
			name = ownAccountName
		}
		role := &step{name: "member role " + name, needs: []*step{own}, check: func(ctx context.Context) finding { return d.memberRole(ctx, account) }}
		steps = append(steps, role, &step{
			name: "iam " + name, needs: []*step{role}, check: func(ctx context.Context) finding { return d.instanceProfiles(ctx, account) },
		})
		for _, p := range d.Places {
			if p.Account == account {
				steps = append(steps, &step{
					name: "ec2 " + name + " " + p.Region, needs: []*step{role}, check: func(ctx context.Context) finding { return d.instances(ctx, p) },
				})
			}
		}
	}
	return steps
}

// resolve returns account, or the function's own account if it is empty.
func (d Doctor) resolve(ctx context.Context, account string) (string, error) {
	if account != "" {
		return account, nil
	}
	return d.AWS.Account(ctx)
}

func (d Doctor) memberRole(ctx context.Context, account string) finding {
	own, err := d.AWS.Account(ctx)
	if err != nil {
		return bad("see the check \"aws identity\"", "%v", err)
	}
	if account == "" {
		account = own
	}
	if err := d.AWS.TryRole(ctx, account); err != nil {
		return bad("create a role in account "+account+" with the name in MEMBER_ROLE_NAME that trusts this function's role with the external ID MEMBER_ROLE_EXTERNAL_ID (DEPLOYMENT_ID if that is not set; infra/member-account creates it), or remove the account from RECONCILE_ACCOUNTS",
			"%v", err)
	}
	if account == own {
		return good("account %s is the function's own: no role is needed", account)
	}
	return good("the function can assume the member role in account %s", account)
}

func (d Doctor) instanceProfiles(ctx context.Context, account string) finding {
	needing := d.profilesNeedingRole()
	if len(needing) == 0 {
		return good("not asked: no profile needs the IAM role of an instance")
	}
	account, err := d.resolve(ctx, account)
	if err == nil {
		err = d.AWS.TryProfiles(ctx, account)
	}
	switch {
	case isUnreached(err):
		return bad(d.routeToIAM()+", or let no profile need the IAM role ("+network+"). These need it: "+abbreviate(needing), "%v", err)
	case err != nil:
		return bad(callRemedy(err, "iam:GetInstanceProfile"), "%v", err)
	}
	return good("iam:GetInstanceProfile is allowed in account %s", account)
}

func (d Doctor) instances(ctx context.Context, p facts.Place) finding {
	account, err := d.resolve(ctx, p.Account)
	p.Account = account
	if err == nil {
		err = d.AWS.TryInstances(ctx, p)
	}
	switch {
	case isUnreached(err):
		return bad(d.routeTo("ec2", p.Region), "%v", err)
	case err != nil:
		return bad(callRemedy(err, "ec2:DescribeInstances"), "%v", err)
	}
	return good("ec2:DescribeInstances is allowed in %s", p.Name())
}

// callRemedy returns the remedy for a failed call, which needs this IAM action.
func callRemedy(err error, action string) string {
	if isDenied(err) {
		return "allow " + action + " to the role that the function uses there: its own (template.yaml) or the member role. No permissions boundary or service control policy may deny it"
	}
	return "check that the function reaches the service there, and that the region's name is right and the region is enabled for the account; then run the doctor again"
}

// isDenied reports whether AWS denied the call because a permission is missing.
func isDenied(err error) bool {
	var answer interface{ ErrorCode() string }
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.ErrorCode() {
	case "AccessDenied", "AccessDeniedException", "UnauthorizedOperation":
		return true
	}
	return false
}
