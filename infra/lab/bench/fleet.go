package bench

import (
	"context"
	"embed"
	"encoding/binary"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

const (
	authMount  = "aws"
	deployment = "bench"
	region     = "us-east-1"
	// objectsEach is the number of objects that the bench's profile renders for an instance.
	objectsEach = 3
	// pageSize is the number of instances on one page of EC2's answer.
	pageSize = 1000
)

// profilesFS holds the bench's one profile.
//
//go:embed profiles
var profilesFS embed.FS

func loadProfiles() (*grant.Set, error) {
	dir, err := fs.Sub(profilesFS, "profiles")
	if err != nil {
		return nil, fmt.Errorf("opening the bench's profile: %w", err)
	}
	set, err := grant.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("loading the bench's profile: %w", err)
	}
	return set, nil
}

func realm() grant.Realm { return grant.Realm{Deployment: deployment, AuthMount: authMount} }

// instanceID returns the ID of the n-th instance. An odd factor makes the IDs unique and scatters them like EC2's own.
func instanceID(n int) string {
	const odd = 0x9e3779b97f4a7c15
	return fmt.Sprintf("i-0%016x", uint64(n+1)*odd)
}

// factsOf returns the made-up facts of the n-th instance.
func factsOf(n int) facts.Instance {
	var ip [4]byte
	binary.BigEndian.PutUint32(ip[:], 10<<24|uint32(n+1)) // n is far below 2^24
	address := netip.AddrFrom4(ip)
	return facts.Instance{
		ID: instanceID(n), State: facts.Running, Account: parts.AccountID, Region: region, AvailabilityZone: region + "a",
		VPCID: "vpc-0123456789abcdef0", SubnetID: "subnet-0123456789abcdef0", ImageID: "ami-0123456789abcdef0", Type: "m5.large",
		PrivateDNSName:        "ip-" + strings.ReplaceAll(address.String(), ".", "-") + ".ec2.internal",
		IPv4s:                 []netip.Addr{address},
		IAMInstanceProfileARN: "arn:aws:iam::" + parts.AccountID + ":instance-profile/alice-worker",
		IAMRoleARN:            "arn:aws:iam::" + parts.AccountID + ":role/alice-worker",
		LaunchTime:            time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Tags:                  map[string]string{"Name": "worker", "role": "worker"},
		ObservedAt:            time.Now(),
	}
}

// render returns the facts and the grant of the n-th instance.
func render(set *grant.Set, n int) (facts.Instance, *grant.Grant, error) {
	f := factsOf(n)
	profile, err := set.Match(f)
	if err == nil && profile == nil {
		err = fmt.Errorf("the bench's profile does not match instance %s", f.ID)
	}
	if err != nil {
		return f, nil, err
	}
	g, err := profile.Render(f, realm())
	if err == nil && len(g.All()) != objectsEach {
		err = fmt.Errorf("the bench's profile renders %d objects, want %d", len(g.All()), objectsEach)
	}
	return f, g, err
}

// pathsOf returns the paths that a comparison reads for the n-th instance, in the order of the grant.
func pathsOf(n int) [objectsEach]string {
	id := instanceID(n)
	return [objectsEach]string{
		grant.PolicyPath(grant.PolicyName(id, "node")),
		grant.PKIRolePath(pkiMount, grant.ObjectName(id, "kubelet")),
		grant.AuthRolePath(authMount, id),
	}
}

// ec2 stands in for EC2 with n instances. It makes each page on demand, so that it adds little to the measured memory.
type ec2 struct {
	n     int
	pages int // read so far
}

func (e *ec2) Account(context.Context) (string, error) { return parts.AccountID, nil }

func (e *ec2) List(_ context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	if p != (facts.Place{Account: parts.AccountID, Region: region}) || len(ids) > 0 {
		return fmt.Errorf("the bench's EC2 lists only the whole of its one place, and was asked for %s and the IDs %v", p.Name(), ids)
	}
	for from := 0; from < e.n; from += pageSize {
		page := make([]instance.Sighting, 0, pageSize)
		for n := from; n < min(from+pageSize, e.n); n++ {
			page = append(page, instance.Sighting{Found: true, Facts: factsOf(n)})
		}
		e.pages++
		if err := each(page); err != nil {
			return err
		}
	}
	return nil
}

// Describe fails for every instance: only a repair calls it, and the bench repairs nothing.
func (e *ec2) Describe(_ context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := map[facts.Ref]instance.Sighting{}
	for _, r := range refs {
		out[r] = instance.Sighting{Err: fmt.Errorf("the bench's EC2 was asked for %s", r.ID)}
	}
	return out
}
