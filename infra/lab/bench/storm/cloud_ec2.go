package storm

import (
	"encoding/xml"
	"net/url"
	"strconv"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// The answers of EC2 and IAM, with the fields that Vault and the functions read.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetInstanceProfile.html
type (
	describeAnswer struct {
		XMLName      xml.Name      `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeInstancesResponse"`
		Reservations []reservation `xml:"reservationSet>item"`
	}
	reservation struct {
		Owner    string  `xml:"ownerId"`
		Instance ec2Item `xml:"instancesSet>item"`
	}
	ec2Item struct {
		ID         string      `xml:"instanceId"`
		Image      string      `xml:"imageId"`
		State      string      `xml:"instanceState>name"`
		PrivateDNS string      `xml:"privateDnsName"`
		Type       string      `xml:"instanceType"`
		Launched   string      `xml:"launchTime"`
		Zone       string      `xml:"placement>availabilityZone"`
		Subnet     string      `xml:"subnetId"`
		VPC        string      `xml:"vpcId"`
		PrivateIP  string      `xml:"privateIpAddress"`
		Profile    *ec2Profile `xml:"iamInstanceProfile"`
	}
	ec2Profile struct {
		ARN string `xml:"arn"`
		ID  string `xml:"id"`
	}
	profileAnswer struct {
		XMLName xml.Name   `xml:"https://iam.amazonaws.com/doc/2010-05-08/ GetInstanceProfileResponse"`
		Profile iamProfile `xml:"GetInstanceProfileResult>InstanceProfile"`
	}
	iamProfile struct {
		Name string    `xml:"InstanceProfileName"`
		ARN  string    `xml:"Arn"`
		Path string    `xml:"Path"`
		Role []iamRole `xml:"Roles>member"`
	}
	iamRole struct {
		Name string `xml:"RoleName"`
		ARN  string `xml:"Arn"`
		Path string `xml:"Path"`
	}
)

// describe returns the instances of a list of IDs, or of the filter instance-id.
func (c *cloud) describe(form url.Values) describeAnswer {
	var answer describeAnswer
	for _, list := range []string{"InstanceId.", "Filter.1.Value."} {
		for n := 1; form.Get(list+strconv.Itoa(n)) != ""; n++ {
			if m, ok := c.instances[form.Get(list+strconv.Itoa(n))]; ok {
				answer.Reservations = append(answer.Reservations, m.shown())
			}
		}
	}
	return answer
}

func (m *machine) shown() reservation {
	item := ec2Item{
		ID: m.ID, Image: m.ImageID, State: m.state, PrivateDNS: m.PrivateDNS, Type: m.InstanceType,
		Launched: m.LaunchTime.UTC().Format(time.RFC3339), Zone: m.AvailabilityZone, Subnet: m.SubnetID, VPC: m.VPCID, PrivateIP: m.PrivateIP,
	}
	if m.state == "running" {
		item.Profile = &ec2Profile{ARN: m.InstanceProfileARN, ID: m.InstanceProfileID}
	}
	return reservation{Owner: m.AccountID, Instance: item}
}

// instanceProfile returns an instance profile that holds the role of the same name.
func instanceProfile(name string) profileAnswer {
	const iam = "arn:aws:iam::" + parts.AccountID
	return profileAnswer{Profile: iamProfile{
		Name: name, ARN: iam + ":instance-profile/" + name, Path: "/",
		Role: []iamRole{{Name: name, ARN: iam + ":role/" + name, Path: "/"}},
	}}
}
