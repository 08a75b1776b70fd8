# What each function may do, from the profiles: the same as internal/rights, which a test holds against this.

locals {
  templates_dir = var.templates_dir == null ? "${path.module}/../../../templates" : var.templates_dir
  profiles      = [for f in fileset(local.templates_dir, "*/profile.yaml") : yamldecode(file("${local.templates_dir}/${f}"))]
  outputs = flatten([
    for p in local.profiles : [for o in p.outputs : { path = "${p.base_path}/${o.path}", type = o.type } if o.type != "policy"]
  ])
  paths      = distinct(concat(var.also_paths, [for o in local.outputs : o.path]))
  pki_mounts = toset([for o in local.outputs : trimsuffix(o.path, "/roles") if o.type == "pki-role"])
  revocable = flatten([
    for p in local.paths : [for by in ["issue", "sign"] : "${trimsuffix(p, "/roles")}/${by}"]
    if var.revoke_certificates && trimsuffix(p, "/roles") != p
  ])
  removal_mounts = distinct(concat([var.auth_mount], var.also_auth_mounts))

  provision = merge(
    {
      "sys/policies/acl/ec2-i-*"        = ["create", "read", "update", "delete"]
      "auth/${var.auth_mount}/role/i-*" = ["create", "read", "update"]
    },
    { for p in local.paths : "${p}/i-*" => ["create", "read", "update", "delete"] },
  )

  deprovision = merge(
    {
      "sys/policies/acl/ec2-i-*" = ["read", "delete"]
      "identity/lookup/entity"   = ["update"]
      "identity/entity/id/*"     = ["delete"]
    },
    { for p in local.paths : "${p}/i-*" => ["delete"] },
    { for m in local.removal_mounts : "auth/${m}/role/i-*" => ["read", "delete"] },
    { for m in local.removal_mounts : "auth/${m}/identity-accesslist/i-*" => ["delete"] },
    { for p in local.revocable : "sys/leases/revoke-prefix/${p}/i-*" => ["update", "sudo"] },
  )

  look = merge(
    {
      "sys/policies/acl"                           = ["list"]
      "auth/${var.auth_mount}/role"                = ["list"]
      "auth/${var.auth_mount}/identity-accesslist" = ["list"]
      "auth/${var.auth_mount}/config/identity"     = ["read"]
      "auth/${var.auth_mount}/config/sts"          = ["list"]
      "identity/entity-alias/id"                   = ["list"]
      "sys/capabilities-self"                      = ["update"]
    },
    { for p in local.paths : p => ["list"] },
    { for m in local.pki_mounts : "${m}/config/acme" => ["read"] },
  )

  reconcile = {
    for path in distinct(concat(keys(local.look), keys(local.provision), keys(local.deprovision))) : path => [
      for c in ["create", "read", "update", "delete", "list", "sudo"] : c
      if contains(concat(try(local.look[path], []), try(local.provision[path], []), try(local.deprovision[path], [])), c)
    ]
  }

  policies = {
    for function, rights in { provision = local.provision, deprovision = local.deprovision, reconcile = local.reconcile } :
    function => join("\n", concat(
      ["# Made from the profiles by infra/vault: change those and run it again.\n"],
      [for path in sort(keys(rights)) : "path \"${path}\" {\n  capabilities = [${join(", ", [for c in rights[path] : "\"${c}\""])}]\n}\n"],
    ))
  }
}
