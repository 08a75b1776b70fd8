# The module's own variables come first. Each of the others is a parameter of template.yaml: same default, type and allowed
# values, its name in snake case. TestTerraform_HasVariableForEachParameter compares them.

variable "name" {
  description = "Name of the stack, which is the deployment's ID in every marker; another name is another deployment"
  type        = string
}

variable "template_url" {
  description = "Address in S3 of template.yaml as sam package wrote it, with the version in its key: Terraform sees a new address, not a new object"
  type        = string
}

variable "iam_role_arn" {
  description = "Role with which CloudFormation makes the stack's resources; null for the caller's own rights"
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of the stack and of its resources"
  type        = map(string)
  default     = {}
}

# Vault

variable "vault_addr" {
  description = "Address of Vault, for example https://vault.example.com:8200"
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^https://[A-Za-z0-9.\\[\\]:-]+/?$", var.vault_addr))
    error_message = "Must be an https:// address without a path."
  }
}

variable "vault_namespace" {
  description = "Namespace of Vault Enterprise or OpenBao, for example team/app; empty for the root one"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^/?[A-Za-z0-9._~:@-]+(/[A-Za-z0-9._~:@-]+)*/?$", var.vault_namespace))
    error_message = "Must be names with slashes between them, for example team/app, or empty."
  }
}

variable "vault_ca_secret_arn" {
  description = "Secrets Manager secret whose string is the PEM bundle that Vault's certificate chains to; empty for the system roots"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$", var.vault_ca_secret_arn))
    error_message = "Must be the complete ARN of a secret, which ends with a hyphen and six random characters, or empty."
  }
}

variable "vault_auth_mount" {
  description = "AWS auth mount that receives one role for each instance"
  type        = string
  default     = "aws"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.vault_auth_mount))
    error_message = "Must be the path of a mount without slashes at its ends, for example aws."
  }
}

# How the functions log in to Vault

variable "vault_login_method" {
  description = "How the functions log in to Vault; iam needs no secret"
  type        = string
  default     = "iam"
  nullable    = false

  validation {
    condition     = contains(["iam", "approle", "token"], var.vault_login_method)
    error_message = "Must be iam, approle or token."
  }
}

variable "vault_login_mount" {
  description = "Auth mount that the functions log in to"
  type        = string
  default     = "aws"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.vault_login_mount))
    error_message = "Must be the path of a mount without slashes at its ends, for example aws."
  }
}

variable "vault_login_role" {
  description = "Prefix of the functions' Vault roles; each function's own name is appended (ec2-provisioner-provision)"
  type        = string
  default     = "ec2-provisioner"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+$", var.vault_login_role))
    error_message = "Must be letters, digits, and any of _.- only."
  }
}

variable "vault_login_secret_arn" {
  description = "ARN of the secret for approle, JSON {\"role_id\",\"secret_id\"}, or for token, JSON {\"token\"}; empty for iam"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$", var.vault_login_secret_arn))
    error_message = "Must be the complete ARN of a secret, which ends with a hyphen and six random characters, or empty."
  }
}

variable "vault_iam_server_id" {
  description = "Value of the X-Vault-AWS-IAM-Server-ID header that the auth mount expects: server_id of infra/vault/terraform"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^[!-~]*$", var.vault_iam_server_id))
    error_message = "Must be printable characters without spaces, or empty."
  }
}

variable "vault_sts_region" {
  description = "Region of the STS request that the functions sign: sts_region of infra/vault/terraform; empty for their own"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[a-z]+(-[a-z]+)+-[0-9]+$", var.vault_sts_region))
    error_message = "Must be a region, for example eu-central-1, or empty."
  }
}

variable "vault_sts_endpoint" {
  description = "STS endpoint that the functions sign for; empty for the region's own"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^https://[A-Za-z0-9.:-]+/?$", var.vault_sts_endpoint))
    error_message = "Must be an https:// address without a path, or empty."
  }
}

# Network

variable "vpc_subnet_ids" {
  description = "Subnets the functions run in, if Vault is reached privately; empty for none. They need a route to the AWS APIs"
  type        = list(string)
  default     = []
  nullable    = false
}

variable "vpc_security_group_ids" {
  description = "Security groups of the functions in those subnets"
  type        = list(string)
  default     = []
  nullable    = false
}

variable "use_fips_endpoints" {
  description = "Call AWS at its FIPS endpoints, which few regions have; the login to Vault keeps its endpoint (vault_sts_endpoint)"
  type        = bool
  default     = false
  nullable    = false
}

variable "use_dual_stack_endpoints" {
  description = "Call AWS at its dual-stack endpoints, for subnets without IPv4"
  type        = bool
  default     = false
  nullable    = false
}

# Rules of your organization and region

variable "permissions_boundary_arn" {
  description = "Permissions boundary of the functions' roles; empty for none"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary_arn))
    error_message = "Must be the ARN of an IAM policy, or empty."
  }
}

variable "role_path" {
  description = "IAM path of the functions' roles and policy, for example /teams/vault/; empty for /. Another path replaces the roles, to which Vault's roles are bound"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^/([A-Za-z0-9+=,.@_-]+/)+$", var.role_path))
    error_message = "Must begin and end with a slash, for example /teams/vault/, or be empty."
  }
}

variable "architecture" {
  description = "Processor of the functions, arm64 or x86_64, as the package at template_url was built for; x86_64 where Lambda has no arm64"
  type        = string
  default     = "arm64"
  nullable    = false

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "Must be arm64 or x86_64."
  }
}
