# Deploys infra/member-account/template.yaml as a CloudFormation stack, for one account and region. The template is the only
# description of the stack. For many accounts of an organization a StackSet is less work: docs/accounts.md.

resource "aws_cloudformation_stack" "this" {
  name          = var.name
  template_url  = var.template_url
  template_body = var.template_url != null ? null : local.template_body
  iam_role_arn  = var.iam_role_arn
  tags          = var.tags

  # The roles have names, which the central stack and Vault know.
  capabilities = ["CAPABILITY_NAMED_IAM"]

  # Each parameter of the template. TestTerraform_PassesEachVariableOn compares them.
  parameters = {
    CentralEventBusArn     = var.central_event_bus_arn
    FunctionRoleArns       = join(",", var.function_role_arns)
    MemberRoleName         = var.member_role_name
    ExternalId             = var.external_id
    VaultPrincipalArns     = join(",", var.vault_principal_arns)
    VaultRoleName          = var.vault_role_name
    VaultExternalId        = var.vault_external_id
    RolesRegion            = var.roles_region
    HookPrefix             = var.hook_prefix
    ReadyTag               = var.ready_tag
    PermissionsBoundaryArn = var.permissions_boundary_arn
    RolePath               = var.role_path
    AlarmTopicArn          = var.alarm_topic_arn
    AlarmOKTopicArn        = var.alarm_ok_topic_arn
    RunbookUrl             = var.runbook_url
  }

  lifecycle {
    precondition {
      condition     = var.template_url == null || var.template_body == null
      error_message = "Set template_url or template_body, or neither for the template of this version."
    }
    precondition {
      condition     = length(local.template_body) <= 51200
      error_message = "CloudFormation takes a template_body of 51,200 bytes at most: set template_url."
    }
  }
}

locals {
  own_template  = "${path.module}/../../member-account/template.yaml"
  template_body = var.template_body != null ? var.template_body : file(local.own_template)
}
