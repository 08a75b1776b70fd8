# Prepares Vault for the functions as the command vault-ec2 setup does. Use one or the other. Import existing objects
# first: without that, apply fails on them and changes nothing.
#   terraform import 'module.<name>.vault_auth_backend.aws["aws"]' aws
# An imported mount's config/client loses the settings that are not set here: docs/deploying.md lists them.

locals {
  mounts = toset([var.auth_mount, var.login_mount])
  has_client = (
    var.server_id != "" || var.sts_region != "" || var.aws_endpoint != "" || nonsensitive(var.aws_keys != null)
  )

  # Vault asks for the unique IDs of the functions' roles through the role in their account.
  function_accounts = var.function_account != "" ? [var.function_account] : [for arn in values(var.function_roles) : split(":", arn)[4]]
  function_sts_roles = {
    for account, role in var.sts_roles : account => role if var.login_mount != var.auth_mount && contains(local.function_accounts, account)
  }

  certificates = { for region, text in var.certificates : region => "${replace(trimspace(text), "\r", "")}\n" }

  # The region's own STS, which the functions sign for. By partition, except for the standard one and GovCloud.
  sts_domains = {
    cn      = "amazonaws.com.cn"
    eusc    = "amazonaws.eu"
    us-iso  = "c2s.ic.gov"
    us-isob = "sc2s.sgov.gov"
    us-isof = "csp.hci.ic.gov"
    eu-isoe = "cloud.adc-e.uk"
  }
  sts_partition = try(regex("^(cn|eusc|us-iso[a-z]?|eu-isoe)-", var.sts_region)[0], "aws")
  sts_domain    = lookup(local.sts_domains, local.sts_partition, "amazonaws.com")
  sts_own       = var.sts_region == "" ? "" : "https://sts.${var.sts_region}.${local.sts_domain}"
  sts_endpoint  = var.aws_endpoint == "" ? local.sts_own : var.aws_endpoint
}

resource "vault_auth_backend" "aws" {
  for_each = local.mounts

  type = "aws"
  path = each.key
}

# How Vault calls AWS, and which header a login must carry. The provider accepts STS's endpoint and region only together,
# and sends every field, unset ones as empty.
resource "vault_aws_auth_backend_client" "aws" {
  for_each = local.has_client ? local.mounts : toset([])

  backend                    = vault_auth_backend.aws[each.key].path
  iam_server_id_header_value = var.server_id
  ec2_endpoint               = var.aws_endpoint
  iam_endpoint               = var.aws_endpoint
  sts_endpoint               = local.sts_endpoint
  sts_region                 = var.sts_region
  access_key                 = try(var.aws_keys.access_key, null)
  secret_key                 = try(var.aws_keys.secret_key, null)

  lifecycle {
    precondition {
      condition     = var.aws_endpoint == "" || var.sts_region != ""
      error_message = "aws_endpoint needs sts_region: the provider accepts STS's endpoint and region only together."
    }
  }
}

# With the instance ID as the alias, a cut needs no stored alias. On a mount with other users the setting would make new
# entities for all of them. The metadata names the instance: a removal uses it as the proof that an entity is the instance's.
resource "vault_aws_auth_backend_config_identity" "aws" {
  for_each = var.set_alias ? toset([var.auth_mount]) : toset([])

  backend      = vault_auth_backend.aws[each.key].path
  ec2_alias    = "instance_id"
  iam_alias    = "role_id"
  ec2_metadata = ["account_id", "auth_type", "instance_id"]
  iam_metadata = ["account_id", "auth_type", "inferred_entity_id"]
}

resource "vault_aws_auth_backend_sts_role" "member" {
  for_each = var.sts_roles

  backend     = vault_auth_backend.aws[var.auth_mount].path
  account_id  = each.key
  sts_role    = each.value
  external_id = var.sts_external_id == "" ? null : var.sts_external_id
}

resource "vault_aws_auth_backend_sts_role" "function" {
  for_each = local.function_sts_roles

  backend     = vault_auth_backend.aws[var.login_mount].path
  account_id  = each.key
  sts_role    = each.value
  external_id = var.sts_external_id == "" ? null : var.sts_external_id
}

# AWS's key of a region that Vault does not know. Vault decodes only base64 with padding, and the provider reads back only base64
# without: line feeds before the block make both the same, or each apply would write the certificate again.
resource "vault_aws_auth_backend_cert" "region" {
  for_each = local.certificates

  backend         = vault_auth_backend.aws[var.auth_mount].path
  cert_name       = each.key
  type            = "identity"
  aws_public_cert = base64encode("${substr("\n\n", 0, (3 - length(each.value) % 3) % 3)}${each.value}")
}

resource "vault_policy" "function" {
  for_each = local.policies

  name   = "${var.role_prefix}-${each.key}"
  policy = each.value
}

# Short-lived batch tokens without the default policy, whose templated rules would double Vault's work for every request.
resource "vault_aws_auth_backend_role" "function" {
  for_each = var.function_roles

  backend                  = vault_auth_backend.aws[var.login_mount].path
  role                     = vault_policy.function[each.key].name
  auth_type                = "iam"
  bound_iam_principal_arns = [each.value]
  resolve_aws_unique_ids   = var.resolve_unique_ids
  token_policies           = [vault_policy.function[each.key].name]
  token_no_default_policy  = true
  token_type               = "batch"
  token_ttl                = 1200
  token_max_ttl            = 1200

  # The settings must come first: with unique IDs, Vault calls IAM when the role is written, in another account through a role.
  depends_on = [vault_aws_auth_backend_client.aws, vault_aws_auth_backend_sts_role.member, vault_aws_auth_backend_sts_role.function]
}

resource "vault_mount" "pki" {
  for_each = var.pki ? local.pki_mounts : toset([])

  path                  = each.key
  type                  = "pki"
  description           = var.deployment == "" ? null : "managed-by: vault-ec2-provisioner, deployment: ${var.deployment}"
  max_lease_ttl_seconds = 315360000
}

resource "vault_pki_secret_backend_root_cert" "pki" {
  for_each = vault_mount.pki

  backend     = each.value.path
  type        = "internal"
  common_name = "${replace(each.key, "/", " ")} CA"
  ttl         = "87600h"
  key_type    = "ec"
  key_bits    = 256
}

resource "vault_mount" "ssh" {
  for_each = var.pki ? local.ssh_mounts : toset([])

  path        = each.key
  type        = "ssh"
  description = var.deployment == "" ? null : "managed-by: vault-ec2-provisioner, deployment: ${var.deployment}"
}

resource "vault_ssh_secret_backend_ca" "ssh" {
  for_each = vault_mount.ssh

  backend              = each.value.path
  generate_signing_key = true
  key_type             = "ed25519"
}
