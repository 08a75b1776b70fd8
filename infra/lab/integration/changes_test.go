package integration

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// tokenWorks reports whether a session's token is still valid.
func tokenWorks(t *testing.T, s *fleet.Session) bool {
	t.Helper()
	_, err := s.Client.Auth().Token().LookupSelfWithContext(t.Context())
	return err == nil
}

// mayHave reports whether the worker's policy allows it certificates with an address.
func mayHave(t *testing.T, i fleet.Instance, address string) bool {
	t.Helper()
	policy, err := world.Vault.Sys().GetPolicyWithContext(t.Context(), "ec2-"+i.ID+"-node")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(policy, `"`+address+`"`)
}

// withToken returns a worker with a grant and a session.
func withToken(t *testing.T) (fleet.Instance, *fleet.Session) {
	t.Helper()
	i := provisioned(t)
	return i, login(t, i)
}

// correct runs reconcile in mode correct for one instance.
func correct(t *testing.T, i fleet.Instance) rec.Answer {
	t.Helper()
	return runReconcile(t, world.Functions[reconcile], rec.Input{Mode: rec.Correct, InstanceIDs: []string{i.ID}})
}

func TestStop_KeepsTheGrantForTheNextStart(t *testing.T) {
	i, session := withToken(t)
	before := objects(t, i)
	if err := world.Fleet.Stop(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	must(t, deprovision, i, "stopped", "left-alone")
	if a := correct(t, i); len(a.Drift) > 0 {
		t.Errorf("want no drift of a stopped instance, got %+v", a.Drift)
	}
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, session.Nonce); err == nil {
		t.Error("a login as a stopped instance succeeded")
	}
	if err := world.Fleet.Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if _, err := world.Fleet.Refresh(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	must(t, provision, i, "running", "unchanged")
	if after := objects(t, i); !slices.Equal(after, before) {
		t.Errorf("got %q after the start, %q before the stop", after, before)
	}
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, session.Nonce); err != nil {
		t.Errorf("want the same nonce to work after the start, got %v", err)
	}
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, ""); err == nil {
		t.Error("a login without the nonce succeeded after the start")
	}
}

// AWS sends no event for a change of an address: the next comparison finds it, or the next start.
func TestAddressChange_IsReconciledAndKeepsToken(t *testing.T) {
	i, session := withToken(t)
	client := ec2.NewFromConfig(world.AWS)
	described, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{i.ID}})
	if err != nil {
		t.Fatal(err)
	}
	first := described.Reservations[0].Instances[0].NetworkInterfaces[0]
	addresses := func() []string {
		t.Helper()
		out, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{i.ID}})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, n := range out.Reservations[0].Instances[0].NetworkInterfaces {
			for _, a := range n.PrivateIpAddresses {
				all = append(all, aws.ToString(a.PrivateIpAddress))
			}
			for _, a := range n.Ipv6Addresses {
				all = append(all, netip.MustParseAddr(aws.ToString(a.Ipv6Address)).String())
			}
		}
		return all
	}
	for _, change := range []struct {
		name string
		make func() error
	}{
		{"a second address", func() error {
			_, err := client.AssignPrivateIpAddresses(t.Context(), &ec2.AssignPrivateIpAddressesInput{NetworkInterfaceId: first.NetworkInterfaceId, PrivateIpAddresses: []string{"127.16.7.250"}})
			return err
		}},
		{"a second interface", func() error {
			made, err := client.CreateNetworkInterface(t.Context(), &ec2.CreateNetworkInterfaceInput{SubnetId: &i.SubnetID, PrivateIpAddress: aws.String("127.16.7.251")})
			if err != nil {
				return err
			}
			_, err = client.AttachNetworkInterface(t.Context(), &ec2.AttachNetworkInterfaceInput{DeviceIndex: aws.Int32(1), InstanceId: &i.ID, NetworkInterfaceId: made.NetworkInterface.NetworkInterfaceId})
			return err
		}},
		{"an IPv6 address", func() error {
			_, err := client.AssignIpv6Addresses(t.Context(), &ec2.AssignIpv6AddressesInput{NetworkInterfaceId: first.NetworkInterfaceId, Ipv6Addresses: []string{"2001:db8::7"}})
			return err
		}},
		{"the second address unassigned", func() error {
			_, err := client.UnassignPrivateIpAddresses(t.Context(), &ec2.UnassignPrivateIpAddressesInput{NetworkInterfaceId: first.NetworkInterfaceId, PrivateIpAddresses: []string{"127.16.7.250"}})
			return err
		}},
	} {
		before := addresses()
		if err := change.make(); err != nil {
			t.Fatalf("%s: %v", change.name, err)
		}
		after := addresses()
		if slices.Equal(before, after) {
			t.Errorf("%s: EC2 shows %q as before, so this tests nothing", change.name, after)
			continue
		}
		if a := correct(t, i); a.Summary.Corrected == 0 || a.Summary.Failed > 0 {
			t.Errorf("%s: want the grant corrected, got %+v", change.name, a)
		}
		for _, address := range slices.Concat(before, after) {
			if is := slices.Contains(after, address); mayHave(t, i, address) != is {
				t.Errorf("%s: a certificate with %s is allowed: %v, want %v", change.name, address, !is, is)
			}
		}
		if !tokenWorks(t, session) {
			t.Errorf("%s: the instance lost its token", change.name)
		}
	}
}

// The built-in profiles grant a node's primary address only, since the others are its pods'.
func TestPrimaryAddress_LeavesThePodsAddressesOut(t *testing.T) {
	folder := map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "addresses: all", "addresses: primary")}
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	assign(t, i, "127.16.7.240")
	mustBy(t, variant(t, provision, folder), i, "running", "provisioned")
	session := login(t, i)
	if mayHave(t, i, "127.16.7.240") || !mayHave(t, i, i.PrivateIP) {
		t.Error("a certificate of the node must hold its primary address, and not one of a pod")
	}
	role, err := world.Vault.Logical().ReadWithContext(t.Context(), "auth/aws/role/"+i.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(role.Data["token_bound_cidrs"]); got != "["+i.PrivateIP+"]" {
		t.Errorf("the token is bound to %s, want [%s]: a pod's address must not use it", got, i.PrivateIP)
	}
	assign(t, i, "127.16.7.241")
	if a := runReconcile(t, variant(t, reconcile, folder), rec.Input{InstanceIDs: []string{i.ID}}); len(a.Drift) > 0 {
		t.Errorf("a new pod must be no drift of its node, got %+v", a.Drift)
	}
	if !tokenWorks(t, session) {
		t.Error("the node lost its token")
	}
}

func TestTagChange_GrantsByTheNewProfile(t *testing.T) {
	folder := changed(t, "worker/profile.yaml", "match:\n", "match:\n  tags: {vault: \"on\"}\n")
	function := variant(t, provision, map[string]string{"TEMPLATES_DIR": folder})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, function, i, "running", "unmatched")
	setTags(t, i, map[string]string{"vault": "on"})
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "events", "tag-change.json"))
	if err != nil {
		t.Fatal(err)
	}
	event := strings.NewReplacer("i-0123456789abcdef0", i.ID, "2026-01-02T03:04:05Z", time.Now().UTC().Format(time.RFC3339)).Replace(string(text))
	if a := bare(t, function, []byte(event)); a.Action != "provisioned" {
		t.Errorf("got %+v", a)
	}
	login(t, i)
}

// AWS reports a changed instance profile only through CloudTrail. Vault itself looks up the instance at each login. moto shows
// that a profile was removed, and not that it was replaced.
func TestInstanceProfile_RemovalEndsLoginThenGrant(t *testing.T) {
	i, session := withToken(t)
	disassociate(t, i)
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, session.Nonce); err == nil {
		t.Error("it logged in without the instance profile to which its auth role is bound")
	}
	if !tokenWorks(t, session) {
		t.Error("its token was cut before a comparison, unlike infra/instance/README.md says")
	}
	if a := correct(t, i); a.Summary.Corrected == 0 || len(objects(t, i)) > 0 || tokenWorks(t, session) {
		t.Errorf("want grant and token removed, got %+v, %q", a, objects(t, i))
	}
	must(t, provision, i, "running", "unmatched")
}
