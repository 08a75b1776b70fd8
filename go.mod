module github.com/vault-ec2-provisioner/vault-ec2-provisioner

go 1.26.0

require (
	github.com/hashicorp/hcl v1.0.1-vault-7
	go.yaml.in/yaml/v3 v3.0.6
)
