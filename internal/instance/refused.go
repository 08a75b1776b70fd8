package instance

import (
	"errors"
	"slices"

	"github.com/aws/smithy-go"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// refusals are the codes by which STS and EC2 refuse to answer about an account or region: no permission, a denial by the
// organization, a region that is not opted in, a suspended or closed account.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
var refusals = []string{
	"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "OptInRequired", "InvalidClientTokenId",
	"UnrecognizedClientException", "RegionDisabledException", "Blocked", "PendingVerification",
}

// IsRefused reports whether AWS, or the settings, refused a look-up, so that asking again does not help. An outage, throttling and an
// unknown fault are no refusal.
func IsRefused(err error) bool {
	var failed smithy.APIError
	if errors.As(err, &failed) {
		return slices.Contains(refusals, failed.ErrorCode())
	}
	return err != nil && fault.KindOf(err) == fault.Refuse
}
