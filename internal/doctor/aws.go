package doctor

import (
	"context"
	"errors"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// ownAccount stands for the function's own account where no setting names it.
const ownAccount = "own account"

func (d Doctor) identity(ctx context.Context) finding {
	own, err := d.AWS.Account(ctx)
	if err != nil {
		return bad("see that the function reaches STS: a NAT gateway or an endpoint for it in the function's subnets", "%v", err)
	}
	return good("the function runs in account %s", own)
}

// accounts are those of the places, each once; empty for the function's own.
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
		return []*step{{name: "places", look: func(context.Context) finding {
			return bad("set RECONCILE_ACCOUNTS and RECONCILE_REGIONS", "no account and region is looked after")
		}}}
	}
	var steps []*step
	for _, account := range d.accounts() {
		name := account
		if account == "" {
			name = ownAccount
		}
		role := &step{name: "member role " + name, needs: []*step{own}, look: func(ctx context.Context) finding { return d.memberRole(ctx, account) }}
		steps = append(steps, role, &step{
			name: "iam " + name, needs: []*step{role}, look: func(ctx context.Context) finding { return d.instanceProfiles(ctx, account) },
		})
		for _, p := range d.Places {
			if p.Account == account {
				steps = append(steps, &step{
					name: "ec2 " + name + " " + p.Region, needs: []*step{role}, look: func(ctx context.Context) finding { return d.instances(ctx, p) },
				})
			}
		}
	}
	return steps
}

// resolve puts the function's own account where none is named.
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
		return bad("make a role in account "+account+" of the name in MEMBER_ROLE_NAME that trusts this function's role with the external ID MEMBER_ROLE_EXTERNAL_ID (DEPLOYMENT_ID where that is not set; infra/member-account makes it), or take the account out of RECONCILE_ACCOUNTS",
			"%v", err)
	}
	if account == own {
		return good("account %s is the function's own: there is no role to take on", account)
	}
	return good("the function takes on its role in account %s", account)
}

func (d Doctor) instanceProfiles(ctx context.Context, account string) finding {
	account, err := d.resolve(ctx, account)
	if err == nil {
		err = d.AWS.TryProfiles(ctx, account)
	}
	if err != nil {
		return bad(allow(err, "iam:GetInstanceProfile"), "%v", err)
	}
	return good("iam:GetInstanceProfile is allowed in account %s", account)
}

func (d Doctor) instances(ctx context.Context, p facts.Place) finding {
	account, err := d.resolve(ctx, p.Account)
	p.Account = account
	if err == nil {
		err = d.AWS.TryInstances(ctx, p)
	}
	if err != nil {
		return bad(allow(err, "ec2:DescribeInstances"), "%v", err)
	}
	return good("ec2:DescribeInstances is allowed in %s", p)
}

// allow is what to do about a call that failed.
func allow(err error, action string) string {
	if refused(err) {
		return "allow " + action + " to the role the function uses there, its own (template.yaml) or the member role; no boundary or service control policy may deny it"
	}
	return "see that the function reaches the service there, that the region is named rightly and enabled for the account, then run the doctor again"
}

// refused tells an answer of AWS's that means: not you.
func refused(err error) bool {
	var answer interface{ ErrorCode() string }
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.ErrorCode() {
	case "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess":
		return true
	}
	return false
}
