# The module's own variables come first. Each of the others is a parameter of infra/member-account/template.yaml: same default, type and allowed
# values, its name in snake case. TestTerraform_HasVariableForEachParameter compares them.

variable "name" {
  description = "Name of the stack"
  type        = string
  default     = "vault-ec2-member"
}

variable "template_url" {
  description = "Address in S3 of the template; null for template_body"
  type        = string
  default     = null
}

variable "template_body" {
  description = "Text of the template, at most 51,200 bytes; null for the one of this version, infra/member-account/template.yaml"
  type        = string
  default     = null
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

# The central stack

variable "central_event_bus_arn" {
  description = "Output event_bus_arn of the central stack's module"
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._/-]+$", var.central_event_bus_arn))
    error_message = "Must be the ARN of an event bus."
  }
}

variable "function_role_arns" {
  description = "Values of the output function_roles of the central stack's module"
  type        = list(string)
  nullable    = false

  validation {
    condition     = alltrue([for v in var.function_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$", v))])
    error_message = "Each must be the ARN of an IAM role."
  }
}

variable "member_role_name" {
  description = "member_role_name of the central stack, without its path"
  type        = string
  default     = "vault-ec2-provisioner-member"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@_-]{1,64}$", var.member_role_name))
    error_message = "Must be the name of a role, without its path."
  }
}

variable "external_id" {
  description = "member_role_external_id of the central stack, or the stack's name if that is empty; also sts_external_id of infra/vault/terraform"
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@:/-]{2,}$", var.external_id))
    error_message = "Must be two or more letters, digits, and any of _+=,.@:/- only."
  }
}

# Vault

variable "vault_principal_arns" {
  description = "IAM roles or users that Vault runs as when it checks logins of this account's instances; empty for no role for Vault, as in Vault's own account"
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for v in var.vault_principal_arns : can(regex("^$|^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/.+$", v))])
    error_message = "Each must be the ARN of an IAM role or user."
  }
}

variable "vault_role_name" {
  description = "Name of the role that Vault assumes; the output vault_role_arn goes into sts_roles of infra/vault/terraform"
  type        = string
  default     = "vault-ec2-provisioner-vault"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@_-]{1,64}$", var.vault_role_name))
    error_message = "Must be the name of a role, without its path."
  }
}

variable "vault_external_id" {
  description = "none if Vault's role must not require external_id, since Vault 1.16 and OpenBao cannot store one; otherwise required"
  type        = string
  default     = "required"
  nullable    = false

  validation {
    condition     = contains(["required", "none"], var.vault_external_id)
    error_message = "Must be required or none."
  }
}

# This account

variable "roles_region" {
  description = "Region whose stack makes the roles, since IAM is global; empty for no roles. In the central account it makes Vault's role alone"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[a-z]+(-[a-z]+)+-[0-9]+$", var.roles_region))
    error_message = "Must be a region, for example eu-central-1, or empty."
  }
}

variable "hook_prefix" {
  description = "hook_prefix of the central stack"
  type        = string
  default     = "vault-identity-"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_/-]{1,200}$", var.hook_prefix))
    error_message = "Must be 1 to 200 letters, digits, and any of _/- only."
  }
}

variable "ready_tag" {
  description = "ready_tag of the central stack"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9][A-Za-z0-9+=.,_@-]{0,127}$", var.ready_tag))
    error_message = "Must be the key of a tag without spaces and slashes, or empty."
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of the roles here; empty for none"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary_arn))
    error_message = "Must be the ARN of an IAM policy, or empty."
  }
}

variable "role_path" {
  description = "IAM path of the roles here, for example /teams/vault/; empty for /. member_role_name of the central stack is then teams/vault/<name>"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^/([A-Za-z0-9+=,.@_-]+/)+$", var.role_path))
    error_message = "Must begin and end with a slash, for example /teams/vault/, or be empty."
  }
}

# Watching

variable "alarm_topic_arn" {
  description = "SNS topic of this region that is notified when events cannot be forwarded; empty for an alarm without a notification"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$", var.alarm_topic_arn))
    error_message = "Must be the ARN of an SNS topic, or empty."
  }
}

variable "alarm_ok_topic_arn" {
  description = "SNS topic of this region that is notified when the alarm ends; empty for none. A new alarm sends one message to it"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$", var.alarm_ok_topic_arn))
    error_message = "Must be the ARN of an SNS topic, or empty."
  }
}

variable "runbook_url" {
  description = "runbook_url of the central stack"
  type        = string
  default     = "https://github.com/vault-ec2-provisioner/vault-ec2-provisioner/blob/main/infra/RUNBOOK.md"
  nullable    = false

  validation {
    condition     = can(regex("^[!-~]{1,512}$", var.runbook_url))
    error_message = "Must be an address without spaces, of at most 512 characters."
  }
}
