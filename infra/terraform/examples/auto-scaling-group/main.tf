# A deployment from nothing to an Auto Scaling group whose instances come into service when they have their Vault identity:
# the stack, Vault's side, and the group. In a configuration of your own, each source is an address with the version, as
#   git::https://github.com/vault-ec2-provisioner/vault-ec2-provisioner.git//infra/terraform/stack?ref=v1.2.3

locals {
  # The profile that fits this role has the instances' VPC in its match too: the built-in one names an example's.
  role = "alice-worker"
}

# The functions read Vault's CA from a secret, though it is none.
resource "aws_secretsmanager_secret" "vault_ca" {
  name_prefix = "vault-ec2-provisioner-ca-"
}

resource "aws_secretsmanager_secret_version" "vault_ca" {
  secret_id     = aws_secretsmanager_secret.vault_ca.id
  secret_string = file(var.vault_ca_file)
}

module "stack" {
  source = "../../stack"

  name                   = "vault-ec2-provisioner"
  template_url           = var.template_url
  vault_addr             = var.vault_addr
  vault_ca_secret_arn    = aws_secretsmanager_secret_version.vault_ca.arn
  vault_iam_server_id    = var.vault_server_id
  profiles               = var.profiles_dir == null ? "built-in" : "active" # vault-ec2 apply activates them
  vpc_subnet_ids         = var.subnet_ids
  vpc_security_group_ids = var.security_group_ids
}

module "vault" {
  source = "../../../vault/terraform"

  deployment     = module.stack.name
  function_roles = module.stack.function_roles
  server_id      = var.vault_server_id
  sts_region     = var.region
  templates_dir  = var.profiles_dir
  set_alias      = true # the auth mount is the module's own
  pki            = true # a trial's CA; without it, make and mark the profiles' PKI mounts yourself
}

# The role needs no rights: Vault asks EC2 who the instance is.
resource "aws_iam_role" "worker" {
  name = local.role

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_instance_profile" "worker" {
  name = local.role
  role = aws_iam_role.worker.name
}

locals {
  # The shipped user data with Vault's address and CA.
  user_data = replace(
    replace(
      file("${path.module}/../../../instance/user-data/worker.yaml"),
      "VAULT_ADDR=https://vault.example.com:8200", "VAULT_ADDR=${var.vault_addr}",
    ),
    "-----BEGIN CERTIFICATE-----\n      -----END CERTIFICATE-----", indent(6, trimspace(file(var.vault_ca_file))),
  )
}

resource "aws_launch_template" "worker" {
  name_prefix            = "${local.role}-"
  image_id               = var.image_id
  instance_type          = var.instance_type
  vpc_security_group_ids = var.security_group_ids
  user_data              = base64gzip(local.user_data) # EC2 takes 16,384 bytes; cloud-init unpacks them

  iam_instance_profile {
    arn = aws_iam_instance_profile.worker.arn
  }

  # A hop limit of 1 keeps containers from the metadata service, where they could log in as the instance.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
}

# The hooks are the group's first ones, so they hold its first instances too. The provider replaces the group when one of them
# changes.
resource "aws_autoscaling_group" "worker" {
  name_prefix         = "${local.role}-"
  min_size            = var.size
  max_size            = var.size
  vpc_zone_identifier = var.subnet_ids

  launch_template {
    id      = aws_launch_template.worker.id
    version = aws_launch_template.worker.latest_version
  }

  initial_lifecycle_hook {
    name                 = "${module.stack.hook_prefix}ready"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    heartbeat_timeout    = 600
    default_result       = "ABANDON"
  }

  initial_lifecycle_hook {
    name                 = "${module.stack.hook_prefix}gone"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    heartbeat_timeout    = 600
    default_result       = "CONTINUE"
  }

  # The functions and their rights must be there before the first instance, and as long as the last one.
  depends_on = [module.stack, module.vault]
}
