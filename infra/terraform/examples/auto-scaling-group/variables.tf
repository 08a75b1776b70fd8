variable "region" {
  description = "Region of the stack and of the group"
  type        = string
}

variable "template_url" {
  description = "Address in S3 of the packaged template: docs/deploying.md has the commands that put it there"
  type        = string
}

variable "vault_addr" {
  description = "Address of Vault, as functions, instances and Terraform reach it"
  type        = string
}

variable "vault_ca_file" {
  description = "File with the certificate (PEM) of the CA that signed Vault's"
  type        = string
}

variable "vault_server_id" {
  description = "Value of the X-Vault-AWS-IAM-Server-ID header: any name that is Vault's alone"
  type        = string
}

variable "profiles_dir" {
  description = "Folder of your profiles, which vault-ec2 apply activates; null for built-in ones, which in a release fit no VPC of yours"
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Subnets of the group, in the VPC that the profile names; the functions run in them too"
  type        = list(string)
}

variable "security_group_ids" {
  description = "Security groups of instances and functions, which let both reach Vault"
  type        = list(string)
}

variable "image_id" {
  description = "Image with vault at /usr/bin/vault, curl and systemd 242 or later"
  type        = string
}

variable "instance_type" {
  description = "Type of the instances"
  type        = string
  default     = "t4g.small"
}

variable "size" {
  description = "Number of instances; 0 until the profiles are active"
  type        = number
  default     = 3
}
