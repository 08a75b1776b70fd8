# Variables continued: how the functions behave and are watched.

# Behaviour

variable "conflict_mode" {
  description = "What to do with a foreign object in Vault at the path of a grant's object"
  type        = string
  default     = "refuse"
  nullable    = false

  validation {
    condition     = contains(["refuse", "adopt"], var.conflict_mode)
    error_message = "Must be refuse or adopt."
  }
}

variable "deprovision_on" {
  description = "State in which an instance loses its identity; shutting-down is a minute earlier, so its last work has none"
  type        = string
  default     = "terminated"
  nullable    = false

  validation {
    condition     = contains(["terminated", "shutting-down"], var.deprovision_on)
    error_message = "Must be terminated or shutting-down."
  }
}

variable "revoke_certificates" {
  description = "Revoke a gone instance's certificates; true those with a lease, all the stored ones too"
  type        = string
  default     = "false"
  nullable    = false

  validation {
    condition     = contains(["true", "false", "all"], var.revoke_certificates)
    error_message = "Must be true, false or all."
  }
}

variable "max_certificate_ttl" {
  description = "Longest max_ttl that a PKI role of a profile may have, for example 8760h (a year)"
  type        = string
  default     = "8760h"
  nullable    = false

  validation {
    condition     = can(regex("^[1-9][0-9]{0,5}h$|^[1-9][0-9]{0,7}[ms]$", var.max_certificate_ttl))
    error_message = "Must be hours, minutes or seconds, for example 8760h."
  }
}

variable "profiles" {
  description = "Where the profiles come from; built-in, or active for those that vault-ec2 apply activates, or the digests, comma-separated, of the only ones that may be used, the preferred first"
  type        = string
  default     = "built-in"
  nullable    = false

  validation {
    condition     = can(regex("^built-in$|^active$|^[0-9a-f]{64}(,[0-9a-f]{64})?$", var.profiles))
    error_message = "Must be built-in, active, or one or two digests of profiles."
  }
}

variable "hook_prefix" {
  description = "Prefix of the names of the Auto Scaling lifecycle hooks that this stack completes; the output hook_prefix passes it on to a group's hooks"
  type        = string
  default     = "vault-identity-"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_/-]{1,200}$", var.hook_prefix))
    error_message = "Must be 1 to 200 letters, digits, and any of _/- only."
  }
}

variable "hook_on_refusal" {
  description = "Answer to the hook of a launching instance that gets no identity"
  type        = string
  default     = "abandon"
  nullable    = false

  validation {
    condition     = contains(["abandon", "continue"], var.hook_on_refusal)
    error_message = "Must be abandon or continue."
  }
}

variable "name_wait" {
  description = "How long a launch hook waits for a name that a live instance holds, from 1m to 60m; 0s not to wait"
  type        = string
  default     = "10m"
  nullable    = false

  validation {
    condition     = can(regex("^(0s|[1-9]m|[1-5][0-9]m|60m)$", var.name_wait))
    error_message = "Must be 0s, or 1m to 60m."
  }
}

variable "ready_tag" {
  description = "Key of a tag on each instance that shows whether its identity is ready; empty for none"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9][A-Za-z0-9+=.,_@-]{0,127}$", var.ready_tag))
    error_message = "Must be the key of a tag without spaces and slashes, or empty."
  }
}

variable "quarantine_severity" {
  description = "Lowest severity of a finding of GuardDuty that puts an instance into quarantine; off for none"
  type        = string
  default     = "off"
  nullable    = false

  validation {
    condition     = contains(["off", "low", "medium", "high"], var.quarantine_severity)
    error_message = "Must be off, low, medium or high."
  }
}

variable "provision_max_concurrency" {
  description = "Concurrent invocations of provision; the rest of a storm waits in the queue instead of flooding Vault"
  type        = number
  default     = 4
  nullable    = false

  validation {
    condition     = var.provision_max_concurrency >= 2 && var.provision_max_concurrency <= 100
    error_message = "Must be 2 to 100."
  }
}

variable "deprovision_max_concurrency" {
  description = "Concurrent invocations of deprovision"
  type        = number
  default     = 4
  nullable    = false

  validation {
    condition     = var.deprovision_max_concurrency >= 2 && var.deprovision_max_concurrency <= 100
    error_message = "Must be 2 to 100."
  }
}

# Other accounts and regions

variable "member_role_name" {
  description = "Name, with its path if it has one, of the role to assume in other accounts; empty if all instances are in this account"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9+=,.@_-]+(/[A-Za-z0-9+=,.@_-]+)*$", var.member_role_name))
    error_message = "Must be the name of a role, with its path without a leading slash, or empty."
  }
}

variable "member_role_external_id" {
  description = "External ID that the role requires; empty for the stack's name"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9+=,.@:/_-]{2,}$", var.member_role_external_id))
    error_message = "Must be two or more letters, digits, and any of +=,.@:/_- only, or empty."
  }
}

variable "member_account_ids" {
  description = "Accounts that may forward their instances' events to this account's default event bus; empty for none"
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for v in var.member_account_ids : can(regex("^$|^[0-9]{12}$", v))])
    error_message = "Each must be an account ID of 12 digits."
  }
}

variable "organization_id" {
  description = "Organization (o-...); all of its accounts may forward instances' events; empty for none"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^o-[a-z0-9]{10,32}$", var.organization_id))
    error_message = "Must be the ID of an organization (o-...), or empty."
  }
}

variable "allowed_accounts" {
  description = "Other accounts, besides this one and reconcile_accounts, whose instances may get a grant; comma-separated, or @accounts.txt of the package, or * for all of organization_id"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[*]$|^@accounts[.]txt$|^[0-9]{12}(, ?[0-9]{12})*$", var.allowed_accounts))
    error_message = "Must be account IDs with commas between them, or @accounts.txt, or *, or empty."
  }
}

# Reconcile

variable "reconcile_schedule" {
  description = "Schedule of the whole comparison, at least every 12 hours, as rate(...) or cron(...); off for runs by hand only"
  type        = string
  default     = "rate(1 hour)"
  nullable    = false

  validation {
    condition     = can(regex("^off$|^rate\\((1 minute|([2-9]|[1-9][0-9]) minutes|1 hour|([2-9]|1[0-2]) hours)\\)$|^cron\\([A-Za-z0-9 ,*/?#-]+\\)$", var.reconcile_schedule))
    error_message = "Must be rate(...) of no more than 12 hours, cron(...) or off."
  }
}

variable "reconcile_mode" {
  description = "Mode of scheduled runs and of invocations that name no mode; detect only reports drift, correct repairs it"
  type        = string
  default     = "correct"
  nullable    = false

  validation {
    condition     = contains(["correct", "detect"], var.reconcile_mode)
    error_message = "Must be correct or detect."
  }
}

variable "reconcile_accounts" {
  description = "Accounts whose instances are compared, comma-separated, as account or account:region, or @accounts.txt of the package; empty for this one. Others need member_role_name"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^@accounts[.]txt$|^[0-9]{12}(:[a-z]+(-[a-z]+)+-[0-9]+)?(, ?[0-9]{12}(:[a-z]+(-[a-z]+)+-[0-9]+)?)*$", var.reconcile_accounts))
    error_message = "Must be account IDs or account:region with commas between them, or @accounts.txt, or empty."
  }
}

variable "reconcile_regions" {
  description = "Regions whose instances are compared, comma-separated; empty for this one"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[a-z]+(-[a-z]+)+-[0-9]+(, ?[a-z]+(-[a-z]+)+-[0-9]+)*$", var.reconcile_regions))
    error_message = "Must be regions with commas between them, or empty."
  }
}

variable "reconcile_repairs" {
  description = "Where drift is repaired; queue spreads repairs over the provision function's invocations"
  type        = string
  default     = "in-place"
  nullable    = false

  validation {
    condition     = contains(["in-place", "queue"], var.reconcile_repairs)
    error_message = "Must be in-place or queue."
  }
}

variable "delete_limit_percent" {
  description = "Delete limit in percent of the recorded instances, of an account or of all; a run above it removes none unless forced. Five removals always pass"
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.delete_limit_percent >= 0 && var.delete_limit_percent <= 100
    error_message = "Must be 0 to 100."
  }
}

variable "reconcile_memory_size" {
  description = "Memory in MB for comparing the fleet; the share of the processor grows with it"
  type        = number
  default     = 512
  nullable    = false

  validation {
    condition     = contains([512, 1024, 2048, 4096, 8192], var.reconcile_memory_size)
    error_message = "Must be 512, 1024, 2048, 4096 or 8192."
  }
}

# Watching

variable "log_level" {
  description = "Lowest level of the functions' log lines: debug, info, warn or error"
  type        = string
  default     = "info"
  nullable    = false

  validation {
    condition     = contains(["debug", "info", "warn", "error"], var.log_level)
    error_message = "Must be debug, info, warn or error."
  }
}

variable "log_retention_days" {
  description = "Days for which the functions' logs are kept"
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "Must be 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "tracing" {
  description = "Active makes Lambda send traces of the functions to X-Ray"
  type        = string
  default     = "PassThrough"
  nullable    = false

  validation {
    condition     = contains(["Active", "PassThrough"], var.tracing)
    error_message = "Must be Active or PassThrough."
  }
}

variable "audit_event_bus_name" {
  description = "Event bus of this account and region that receives the audit events; empty for the log alone"
  type        = string
  default     = "default"
  nullable    = false

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9._/-]{1,256}$", var.audit_event_bus_name))
    error_message = "Must be the name of an event bus, or empty."
  }
}

variable "alarm_topic_arn" {
  description = "SNS topic that the alarms notify; empty for alarms without a notification"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$", var.alarm_topic_arn))
    error_message = "Must be the ARN of an SNS topic, or empty."
  }
}

variable "alarm_ok_topic_arn" {
  description = "SNS topic that is notified when an alarm ends; empty for none. Set it after the first apply, or each new alarm sends one message"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$", var.alarm_ok_topic_arn))
    error_message = "Must be the ARN of an SNS topic, or empty."
  }
}

variable "runbook_url" {
  description = "Address of your copy of infra/RUNBOOK.md; each alarm's description links to its section"
  type        = string
  default     = "https://github.com/vault-ec2-provisioner/vault-ec2-provisioner/blob/main/infra/RUNBOOK.md"
  nullable    = false

  validation {
    condition     = can(regex("^[!-~]{1,512}$", var.runbook_url))
    error_message = "Must be an address without spaces, of at most 512 characters."
  }
}

variable "reconcile_overdue_seconds" {
  description = "Twice the period of reconcile_schedule; an alarm fires if no comparison ends within that time"
  type        = number
  default     = 7200
  nullable    = false

  validation {
    condition     = contains([3600, 7200, 14400, 28800, 43200, 86400], var.reconcile_overdue_seconds)
    error_message = "Must be 3600, 7200, 14400, 28800, 43200 or 86400."
  }
}

# Encryption

variable "kms_key_arn" {
  description = "KMS key of your own for table, queues and logs; empty for AWS's. docs/deploying.md has the key policy it needs"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "Must be the ARN of a KMS key, not of an alias, or empty."
  }
}
