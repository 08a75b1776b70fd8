package instance

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// newProfile is how long after an instance's start IAM may not show its instance profile yet: IAM's answers lag behind its writes.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
const newProfile = 5 * time.Minute

// RoleError says why the IAM role of an instance that EC2 describes is unknown. Its kind is fault.Refuse if asking again does not
// help: the instance profile does not exist. Only making a grant depends on the role.
type RoleError struct{ Err error }

func (e *RoleError) Error() string { return e.Err.Error() }
func (e *RoleError) Unwrap() error { return e.Err }

// LacksRole reports whether EC2 describes the instance, and only its IAM role is unknown. Err says why.
func (s Sighting) LacksRole() bool {
	var e *RoleError
	return s.Found && errors.As(s.Err, &e)
}

// roleError returns the error of an instance whose role could not be looked up.
func (l *Lookup) roleError(f facts.Instance, err error) error {
	isGone := errorCode(err) == "NoSuchEntity" && l.now().Sub(f.LaunchTime) >= newProfile
	if !isGone {
		return &RoleError{fmt.Errorf("instance %s: %w", f.ID, err)}
	}
	// Without AWS's own text, which has another request ID at each try.
	return &RoleError{fault.Refusef("instance %s: its instance profile %s does not exist in IAM (NoSuchEntity), so that its role is unknown: what was granted stays, and nothing is "+
		"granted until the instance profile exists again, or the instance has another", f.ID, f.IAMInstanceProfileARN)}
}

// checkProfileARN returns an error of kind fault.Refuse for a text that is not the ARN of an instance profile of the account: EC2
// associates no other.
func checkProfileARN(text, account string) error {
	parsed, err := arn.Parse(text)
	if err != nil || parsed.Service != "iam" || parsed.AccountID != account || !strings.HasPrefix(parsed.Resource, "instance-profile/") {
		return fault.Refusef("its instance profile %+q is not one of account %s, so that IAM is not asked for its role: associate another one", text, account)
	}
	return nil
}
