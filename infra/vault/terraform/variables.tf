# Each variable but function_account corresponds to the flag of vault-ec2 setup of the same name.

variable "function_roles" {
  description = "IAM role ARN of each function, by provision, deprovision and reconcile: the stack's outputs"
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.function_roles), ["provision", "deprovision", "reconcile"])) == 0
    error_message = "The functions are provision, deprovision and reconcile."
  }
}

variable "function_account" {
  description = "Account of the functions; empty to read it from function_roles. Needed with a login_mount of its own and sts_roles where function_roles is known only after apply"
  type        = string
  default     = ""
}

variable "deployment" {
  description = "ID of the deployment, the stack's name: the PKI mounts that the module makes are marked as its own"
  type        = string
  default     = ""
}

variable "auth_mount" {
  description = "AWS auth mount that receives one role per instance"
  type        = string
  default     = "aws"
}

variable "login_mount" {
  description = "AWS auth mount the functions log in to"
  type        = string
  default     = "aws"
}

variable "role_prefix" {
  description = "Prefix of the functions' policies and roles"
  type        = string
  default     = "ec2-provisioner"
}

variable "server_id" {
  description = "Value the X-Vault-AWS-IAM-Server-ID header must have; one per Vault cluster"
  type        = string
  default     = ""
}

variable "sts_region" {
  description = "Region whose STS Vault calls: the functions' region, or VaultSTSRegion. Empty is sts.amazonaws.com, for which the functions do not sign"
  type        = string
  default     = ""
}

variable "aws_endpoint" {
  description = "Endpoint for EC2, IAM and STS instead of AWS's own, for tests"
  type        = string
  default     = ""
}

variable "aws_keys" {
  description = "Keys for Vault if it has no role of its own; they end up in Terraform's state"
  type        = object({ access_key = string, secret_key = string })
  default     = null
  sensitive   = true
}

variable "resolve_unique_ids" {
  description = "Bind the functions' roles to IAM's unique IDs; Vault needs iam:GetRole for that"
  type        = bool
  default     = true
}

variable "sts_roles" {
  description = "Role that Vault assumes to check an account's instances, by account"
  type        = map(string)
  default     = {}
}

variable "sts_external_id" {
  description = "External ID that those roles require: ExternalId of infra/member-account; needs Vault 1.17, so leave it empty for Vault 1.16 and OpenBao"
  type        = string
  default     = ""
}

variable "certificates" {
  description = "AWS's RSA certificate (PEM) of each region that Vault does not know, by region: the key of the instances' identity documents there"
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for text in values(var.certificates) : length(regexall("-----BEGIN CERTIFICATE-----", text)) == 1])
    error_message = "Each must be one certificate in PEM."
  }
}

variable "also_paths" {
  description = "Paths, base path included, of objects that instances still have and no profile names any more"
  type        = list(string)
  default     = []
}

variable "also_auth_mounts" {
  description = "Former values of auth_mount: auth mounts on which instances still have roles"
  type        = list(string)
  default     = []
}

variable "set_alias" {
  description = "Make the instance ID the alias of logins; true for a mount of its own, never for one with other users"
  type        = bool
  default     = false
}

variable "revoke_certificates" {
  description = "Let deprovision and reconcile revoke certificates (RevokeCertificates=true or all)"
  type        = bool
  default     = false
}

variable "revoke_stored_certificates" {
  description = "Let them revoke stored certificates too (RevokeCertificates=all): it reaches every certificate of the PKI mounts"
  type        = bool
  default     = false
}

variable "pki" {
  description = "Make the profiles' PKI and SSH mounts, each with a CA of its own: for a trial"
  type        = bool
  default     = false
}

variable "templates_dir" {
  description = "Folder of profiles; null for the built-in ones"
  type        = string
  default     = null
}
