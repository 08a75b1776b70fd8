package integration

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// eachElementAllowed reports whether the world's server lets a list or a comma string through allowed_parameters if each of its
// elements is an allowed value. Vault does so from 1.21 on. Vault up to 1.20 and OpenBao need the whole list to be an allowed value.
// https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
//
// OpenBao has version numbers of its own. Its health lacks the field enterprise, which Vault's has.
func eachElementAllowed(t *testing.T) bool {
	t.Helper()
	status, body := send(t, clientOn(t, fleet.Instance{}, ""), request{method: "GET", path: "sys/health", anonymous: true})
	var health struct {
		Version    string
		Enterprise *bool
	}
	if err := json.Unmarshal(body, &health); err != nil {
		t.Fatalf("the server's health is %d %.200s: %v", status, body, err)
	}
	numbers := strings.SplitN(health.Version, ".", 3)
	if len(numbers) < 3 {
		t.Fatalf("the server's version is %q, want three numbers", health.Version)
	}
	major, err := strconv.Atoi(numbers[0])
	if err != nil {
		t.Fatal(err)
	}
	minor, err := strconv.Atoi(numbers[1])
	if err != nil {
		t.Fatal(err)
	}
	return health.Enterprise != nil && (major > 1 || minor >= 21)
}
