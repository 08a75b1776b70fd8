# Made from the profiles by infra/vault: change those and run it again.

path "alice_cluster/pki/etcd_k8s/roles/i-*" {
  capabilities = ["delete"]
}

path "alice_cluster/pki/etcd_overlay/roles/i-*" {
  capabilities = ["delete"]
}

path "alice_cluster/pki/k8s/roles/i-*" {
  capabilities = ["delete"]
}

path "alice_cluster/pki/k8s_api_proxy/roles/i-*" {
  capabilities = ["delete"]
}

path "auth/aws/identity-accesslist/i-*" {
  capabilities = ["delete"]
}

path "auth/aws/role/i-*" {
  capabilities = ["read", "delete"]
}

path "identity/entity/id/*" {
  capabilities = ["delete"]
}

path "identity/lookup/entity" {
  capabilities = ["update"]
}

path "sys/policies/acl/ec2-i-*" {
  capabilities = ["read", "delete"]
}
