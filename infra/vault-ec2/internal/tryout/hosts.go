package tryout

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
)

const (
	grantPatience = 15 * time.Minute
	stayPatience  = 5 * time.Minute
)

//go:embed host/instance.py
var instanceScript string

// kind is a kind of instances.
type kind struct {
	name, place string
	count       int
	change      func(in *ec2.RunInstancesInput, p *place)
}

// kinds are launched one after the other by RunInstances. The others attack the first instance.
func kinds() []kind {
	return []kind{
		{name: "IPv4 and IPv6, the first", place: home, count: 1},
		{name: "IPv4 and IPv6, four at once", place: home, count: 4},
		{name: "IPv6 alone", place: home, count: 1, change: func(in *ec2.RunInstancesInput, p *place) {
			in.SubnetId = aws.String(p.stack.Outputs["IPv6SubnetId"])
		}},
		{name: "resource-based name", place: home, count: 1, change: func(in *ec2.RunInstancesInput, _ *place) {
			in.PrivateDnsNameOptions = &types.PrivateDnsNameOptionsRequest{HostnameType: types.HostnameTypeResourceName, EnableResourceNameDnsARecord: aws.Bool(true)}
		}},
		{name: "Xen (t2)", place: home, count: 1, change: func(in *ec2.RunInstancesInput, p *place) {
			in.InstanceType, in.ImageId = types.InstanceTypeT2Nano, aws.String(p.stack.Outputs["X86Image"])
			in.MetadataOptions.HttpProtocolIpv6 = "" // for Nitro only
		}},
		{name: "another region", place: region, count: 1},
		{name: "another account", place: member, count: 1},
	}
}

// host is a launched instance.
type host struct {
	id, kind string
	group    string // of Auto Scaling; empty for none
	place    *place
	launched time.Time
	seen     seen
}

// seen is what an instance wrote of itself (host/instance.py).
type seen struct {
	ID, Name           string
	Addresses          []string
	Tries              int
	Refusal            string  // of the last login before the first good one
	Waited             float64 // seconds from its first login to the good one
	Granted            float64 // Unix time of the first good login
	Uses               int
	Refused            int      // later logins and certificates
	Failures           []string // the last ones of them
	Accessor           string
	Certificate        string
	CertificateRefusal string `json:"certificate_refusal"`
	Attacks            []struct {
		Name, Kind string // the kind is request, which Vault's policies refuse, or login
		Status     int
		Errors     string
	}
	Document, Signature, Nonce string
}

// userData returns the script of an instance. Vault's addresses depend on its place.
func (t *tryout) userData(p *place) string {
	addresses := map[string]string{"ipv4": t.facts.Private, "ipv6": t.facts.IPv6}
	if p.kind != home {
		addresses["ipv4"] = t.facts.Public
	}
	var peer map[string]string
	if t.peer != nil {
		peer = map[string]string{"id": t.peer.id, "name": t.peer.seen.Name, "address": t.peer.seen.Addresses[0]}
	}
	settings, _ := json.Marshal(map[string]any{"addresses": addresses, "ca": t.facts.CA, "base_path": basePath, "peer": peer}) // strings cannot fail
	literal, _ := json.Marshal(string(settings))
	return "#!/usr/bin/python3\nimport json\nSETTINGS = json.loads(" + string(literal) + ")\n" + instanceScript
}

// launch launches the instances of a kind.
func (t *tryout) launch(ctx context.Context, k kind) ([]*host, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p := t.at(k.place)
	out := p.stack.Outputs
	in := &ec2.RunInstancesInput{
		ImageId: aws.String(out["Arm64Image"]), InstanceType: types.InstanceTypeT4gNano, MinCount: aws.Int32(int32(k.count)), MaxCount: aws.Int32(int32(k.count)), //nolint:gosec // a handful
		SubnetId: aws.String(out["SubnetId"]), SecurityGroupIds: []string{out["InstanceGroupId"]},
		IamInstanceProfile: &types.IamInstanceProfileSpecification{Arn: aws.String(out["InstanceProfileArn"])},
		MetadataOptions: &types.InstanceMetadataOptionsRequest{
			HttpTokens: types.HttpTokensStateRequired, HttpProtocolIpv6: types.InstanceMetadataProtocolStateEnabled,
		},
		UserData:                          aws.String(base64.StdEncoding.EncodeToString([]byte(t.userData(p)))),
		InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeInstance, Tags: []types.Tag{
			{Key: aws.String(tagKey), Value: &t.o.Name}, {Key: aws.String("Name"), Value: aws.String(t.o.Name + " " + k.name)},
		}}},
	}
	if k.change != nil {
		k.change(in, p)
	}
	answer, err := ec2.NewFromConfig(p.aws).RunInstances(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("launching instances (%s) in %s: %w", k.name, p, err)
	}
	var hosts []*host
	for _, i := range answer.Instances {
		hosts = append(hosts, &host{id: aws.ToString(i.InstanceId), kind: k.name, place: p, launched: time.Now()})
	}
	t.hosts = append(t.hosts, hosts...)
	return hosts, nil
}

// launchKinds launches every kind, and waits until each instance has what it should have.
func (t *tryout) launchKinds(ctx context.Context) bool {
	isFirst := true
	for _, k := range kinds() {
		expected := fmt.Sprintf("%d × %s: granted, logged in, with a certificate for the own name and addresses", k.count, k.name)
		if t.at(k.place) == nil {
			t.j.skip(expected, map[string]string{region: "no --second-region", member: "no --member-profile"}[k.place])
			continue
		}
		t.j.doing("launching %d × %s", k.count, k.name)
		since := time.Now()
		hosts, err := t.launch(ctx, k)
		if refused := smithy.APIError(nil); errors.As(err, &refused) && refused.ErrorCode() == "Unsupported" {
			t.j.skip(expected, refused.ErrorMessage()) // the region or the zone lacks the instance type
			continue
		}
		if err == nil {
			err = t.awaitGrants(ctx, hosts)
		}
		if isGranted := t.j.check(expected, since, err); isFirst && !isGranted {
			return false
		}
		if isFirst {
			t.peer, isFirst = hosts[0], false
		}
	}
	return true
}

var errNothingReported = errors.New("it has reported nothing, so it never logged in: look at its output by aws ec2 get-console-output, and at vault-ec2 reconcile --instance")

// awaitGrants waits until each instance has reported, and checks its certificate.
func (t *tryout) awaitGrants(ctx context.Context, hosts []*host) error {
	var errs []error
	for _, h := range hosts {
		err := t.await(ctx, grantPatience, func() error { return t.readSeen(ctx, h) })
		if err == nil {
			err = checkCertificate(h.seen)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("instance %s: %w", h.id, err))
		}
	}
	return errors.Join(errs...)
}

// readSeen reads what an instance wrote.
func (t *tryout) readSeen(ctx context.Context, h *host) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	path := basePath + "/results/" + h.id
	answer, err := t.vault.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return fmt.Errorf("reading %s in Vault: %w", path, err)
	}
	if answer == nil {
		return errNothingReported
	}
	text, _ := answer.Data["results"].(string)
	var s seen
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("the results of %s are not JSON", h.id)
	}
	h.seen = s
	return nil
}

// reported returns the instances that logged in and said so. The others have lines of their own.
func (t *tryout) reported() []*host {
	return slices.DeleteFunc(slices.Clone(t.hosts), func(h *host) bool { return h.seen.Granted == 0 })
}

// awaitUses waits until each instance has used its identity twice since now, and fails if one was refused meanwhile.
func (t *tryout) awaitUses(ctx context.Context, hosts []*host) error {
	before := map[*host]seen{}
	for _, h := range hosts {
		if err := t.readSeen(ctx, h); err != nil {
			return fmt.Errorf("instance %s: %w", h.id, err)
		}
		before[h] = h.seen
	}
	err := t.await(ctx, stayPatience, func() error {
		for _, h := range hosts {
			if h.seen.Uses >= before[h].Uses+2 {
				continue
			}
			if err := t.readSeen(ctx, h); err != nil {
				return fmt.Errorf("instance %s: %w", h.id, err)
			}
			if h.seen.Uses < before[h].Uses+2 {
				return fmt.Errorf("instance %s (%s) has used its identity %d times since, want 2", h.id, h.kind, h.seen.Uses-before[h].Uses)
			}
		}
		return nil
	})
	errs := []error{err}
	for _, h := range hosts {
		if h.seen.Refused > before[h].Refused {
			errs = append(errs, h.failure())
		}
	}
	return errors.Join(errs...)
}

// failure is what was refused to an instance after its first login.
func (h *host) failure() error {
	return fmt.Errorf("instance %s (%s) was refused %d times, at last: %s", h.id, h.kind, h.seen.Refused, strings.Join(h.seen.Failures, "; "))
}
