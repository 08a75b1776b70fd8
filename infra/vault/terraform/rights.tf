# The rights of each function, from the profiles. A test compares them with internal/rights.

locals {
  templates_dir = var.templates_dir == null ? "${path.module}/../../../templates" : var.templates_dir
  profile_files = { for f in fileset(local.templates_dir, "*/profile.yaml") : dirname(f) => yamldecode(file("${local.templates_dir}/${f}")) }
  # A profile that extends another has its values where its own file has none, and its outputs but those of a name that its file has.
  profiles = [
    for p in local.profile_files : merge(try(local.profile_files[p.extends], {}), p, {
      outputs = concat(
        [for o in try(local.profile_files[p.extends].outputs, []) : o if !contains([for own in try(p.outputs, []) : own.name], o.name)],
        try(p.outputs, []),
      )
    }) if !try(p.abstract, false)
  ]
  outputs = flatten([
    for p in local.profiles : [for o in p.outputs : { path = "${p.base_path}/${o.path}", type = o.type } if o.type != "policy"]
  ])
  paths       = distinct(concat(var.also_paths, [for o in local.outputs : o.path]))
  pki_mounts  = toset([for o in local.outputs : trimsuffix(o.path, "/roles") if o.type == "pki-role"])
  ssh_mounts  = toset([for o in local.outputs : trimsuffix(o.path, "/roles") if o.type == "ssh-role"])
  role_mounts = toset([for o in local.outputs : trimsuffix(o.path, "/roles") if contains(["pki-role", "ssh-role"], o.type)])
  revocable = flatten([
    for p in local.paths : [for by in ["issue", "sign"] : "${trimsuffix(p, "/roles")}/${by}"]
    if var.revoke_certificates && trimsuffix(p, "/roles") != p && !contains(local.ssh_mounts, trimsuffix(p, "/roles"))
  ])
  stored_mounts  = var.revoke_stored_certificates ? local.pki_mounts : toset([])
  removal_mounts = distinct(concat([var.auth_mount], var.also_auth_mounts))

  provision = merge(
    {
      "sys/policies/acl/ec2-i-*"        = ["create", "read", "update", "delete"]
      "auth/${var.auth_mount}/role/i-*" = ["create", "read", "update"]
      # One list for a batch shows which paths are absent; without it each is read.
      "sys/policies/acl"            = ["list"]
      "auth/${var.auth_mount}/role" = ["list"]
    },
    { for p in local.paths : "${p}/i-*" => ["create", "read", "update", "delete"] },
    { for m in local.role_mounts : "${m}/roles" => ["list"] },
  )

  deprovision = merge(
    {
      "sys/policies/acl/ec2-i-*" = ["read", "delete"]
      "identity/lookup/entity"   = ["update"]
      "identity/entity/id/*"     = ["delete"]
    },
    { for p in local.paths : "${p}/i-*" => ["delete"] },
    { for m in local.removal_mounts : "auth/${m}/role/i-*" => ["read", "delete"] },
    { for m in local.removal_mounts : "auth/${m}/identity-accesslist/i-*" => ["read", "delete"] },
    { for m in local.removal_mounts : "auth/${m}/config/identity" => ["read"] },
    { for p in local.revocable : "sys/leases/revoke-prefix/${p}/i-*" => ["update", "sudo"] },
    { for m in local.stored_mounts : "${m}/revoke" => ["update"] },
  )

  look = merge(
    {
      "sys/policies/acl"                            = ["list"]
      "auth/${var.auth_mount}/role"                 = ["list"]
      "auth/${var.auth_mount}/identity-accesslist"  = ["list"]
      "auth/${var.auth_mount}/config/certificate/*" = ["read"]
      "auth/${var.auth_mount}/config/certificates"  = ["list"]
      "auth/${var.auth_mount}/config/sts"           = ["list"]
      "identity/entity-alias/id"                    = ["list"]
      "sys/capabilities-self"                       = ["update"]
    },
    { for p in local.paths : p => ["list"] },
    { for m in local.pki_mounts : "${m}/config/acme" => ["read"] },
    { for m in local.stored_mounts : "${m}/certs" => ["list"] },
    { for m in local.stored_mounts : "${m}/config/crl" => ["read"] },
    { for m in local.stored_mounts : "${m}/config/auto-tidy" => ["read"] },
    { for m in local.ssh_mounts : "${m}/config/ca" => ["read"] },
  )

  reconcile = {
    for path in distinct(concat(keys(local.look), keys(local.provision), keys(local.deprovision))) : path => [
      for c in ["create", "read", "update", "delete", "list", "sudo"] : c
      if contains(concat(try(local.look[path], []), try(local.provision[path], []), try(local.deprovision[path], [])), c)
    ]
  }

  # The parameters of an auth role's write, with the allowed values where they are few. Numbers are strings, since Vault
  # never treats a number in a request as equal to a number in a policy.
  auth_role_parameters = {
    auth_type                      = ["ec2", "iam"]
    bound_account_id               = []
    bound_ami_id                   = []
    bound_ec2_instance_id          = []
    bound_iam_instance_profile_arn = []
    bound_iam_principal_arn        = []
    bound_iam_role_arn             = []
    bound_region                   = []
    bound_subnet_id                = []
    bound_vpc_id                   = []
    resolve_aws_unique_ids         = []
    inferred_entity_type           = ["", "ec2_instance"]
    inferred_aws_region            = []
    role_tag                       = [""]
    allow_instance_migration       = [false]
    disallow_reauthentication      = [false]
    token_policies                 = []
    token_bound_cidrs              = []
    token_ttl                      = []
    token_max_ttl                  = []
    token_explicit_max_ttl         = ["0"]
    token_period                   = ["0"]
    token_num_uses                 = ["0"]
    token_type                     = ["default"]
    token_no_default_policy        = [true]
  }
  auth_role_lines = [
    for name in sort(keys(local.auth_role_parameters)) :
    "    \"${name}\" = [${join(", ", [for v in local.auth_role_parameters[name] : jsonencode(v)])}]\n"
  ]
  # By capability and path. A function that only deletes auth roles sends no parameters.
  allowed = merge(
    { "update auth/${var.auth_mount}/role/i-*" = "  allowed_parameters = {\n${join("", local.auth_role_lines)}  }\n" },
    { for m in local.stored_mounts : "update ${m}/revoke" => "  allowed_parameters = {\n    \"serial_number\" = []\n  }\n" },
  )

  policies = {
    for function, rights in { provision = local.provision, deprovision = local.deprovision, reconcile = local.reconcile } :
    function => join("\n", concat(
      ["# Made from the profiles by vault-ec2 setup: change those and run it again.\n"],
      [for path in sort(keys(rights)) : join("", concat(
        ["path \"${path}\" {\n  capabilities = [${join(", ", [for c in rights[path] : "\"${c}\""])}]\n"],
        [for c in rights[path] : lookup(local.allowed, "${c} ${path}", "")],
        ["}\n"],
      ))],
    ))
  }
}
