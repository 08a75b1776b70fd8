package instance_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

func TestIsRefused_KnowsRefusalsOnly(t *testing.T) {
	code := func(c string) error { return fmt.Errorf("describing: %w", &smithy.GenericAPIError{Code: c}) }
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"no permission":              {code("UnauthorizedOperation"), true},
		"a role that trusts no more": {code("AccessDenied"), true},
		"a region not opted in":      {code("AuthFailure"), true},
		"an account not allowed":     {fmt.Errorf("describing: %w", fault.Refusef("account 1 is not allowed")), true},
		"throttled":                  {code("RequestLimitExceeded"), false},
		"an outage":                  {code("InternalError"), false},
		"our own clock or keys":      {code("RequestExpired"), false},
		"no answer":                  {errors.New("connection refused"), false},
		"no error":                   {nil, false},
	} {
		if got := instance.IsRefused(c.err); got != c.want {
			t.Errorf("%s: want refused: %v, got %v", name, c.want, got)
		}
	}
}
