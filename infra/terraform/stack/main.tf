# Deploys the packaged template.yaml as a CloudFormation stack. The template is the only description of the stack: this module
# passes its parameters on and returns its outputs. Combinations of parameters that the template refuses (its Rules) are
# refused by CloudFormation at apply, before anything is made.
#
# A template given as text may have 51,200 bytes at most, and this one is larger: so there is template_url and no template_body.

resource "aws_cloudformation_stack" "this" {
  name         = var.name
  template_url = var.template_url
  iam_role_arn = var.iam_role_arn
  tags         = var.tags

  # For the functions' roles, and for the SAM transform.
  capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]

  # Each parameter of template.yaml. TestTerraform_PassesEachVariableOn compares them.
  parameters = {
    VaultAddr                 = var.vault_addr
    VaultNamespace            = var.vault_namespace
    VaultCASecretArn          = var.vault_ca_secret_arn
    VaultAuthMount            = var.vault_auth_mount
    VaultLoginMethod          = var.vault_login_method
    VaultLoginMount           = var.vault_login_mount
    VaultLoginRole            = var.vault_login_role
    VaultLoginSecretArn       = var.vault_login_secret_arn
    VaultIAMServerId          = var.vault_iam_server_id
    VaultSTSRegion            = var.vault_sts_region
    VaultSTSEndpoint          = var.vault_sts_endpoint
    VpcSubnetIds              = join(",", var.vpc_subnet_ids)
    VpcSecurityGroupIds       = join(",", var.vpc_security_group_ids)
    UseFIPSEndpoints          = var.use_fips_endpoints
    UseDualStackEndpoints     = var.use_dual_stack_endpoints
    PermissionsBoundaryArn    = var.permissions_boundary_arn
    RolePath                  = var.role_path
    Architecture              = var.architecture
    ConflictMode              = var.conflict_mode
    DeprovisionOn             = var.deprovision_on
    RevokeCertificates        = var.revoke_certificates
    MaxCertificateTTL         = var.max_certificate_ttl
    Profiles                  = var.profiles
    HookPrefix                = var.hook_prefix
    HookOnRefusal             = var.hook_on_refusal
    NameWait                  = var.name_wait
    ReadyTag                  = var.ready_tag
    QuarantineSeverity        = var.quarantine_severity
    ProvisionMaxConcurrency   = var.provision_max_concurrency
    DeprovisionMaxConcurrency = var.deprovision_max_concurrency
    MemberRoleName            = var.member_role_name
    MemberRoleExternalId      = var.member_role_external_id
    MemberAccountIds          = join(",", var.member_account_ids)
    OrganizationId            = var.organization_id
    AllowedAccounts           = var.allowed_accounts
    ReconcileSchedule         = var.reconcile_schedule
    ReconcileMode             = var.reconcile_mode
    ReconcileAccounts         = var.reconcile_accounts
    ReconcileRegions          = var.reconcile_regions
    ReconcileRepairs          = var.reconcile_repairs
    DeleteLimitPercent        = var.delete_limit_percent
    ReconcileMemorySize       = var.reconcile_memory_size
    LogLevel                  = var.log_level
    LogRetentionDays          = var.log_retention_days
    Tracing                   = var.tracing
    AuditEventBusName         = var.audit_event_bus_name
    AlarmTopicArn             = var.alarm_topic_arn
    AlarmOKTopicArn           = var.alarm_ok_topic_arn
    RunbookUrl                = var.runbook_url
    ReconcileOverdueSeconds   = var.reconcile_overdue_seconds
    KmsKeyArn                 = var.kms_key_arn
  }

  # A stack that is deleted, or replaced under another name, leaves every grant in Vault with no function to remove it.
  # docs/upgrades.md has the way to uninstall.
  lifecycle {
    prevent_destroy = true
  }
}
