# Made from the profiles by infra/vault: change those and run it again.

path "alice_cluster/pki/etcd_k8s/roles/i-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "alice_cluster/pki/etcd_overlay/roles/i-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "alice_cluster/pki/k8s/roles/i-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "alice_cluster/pki/k8s_api_proxy/roles/i-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "auth/aws/role/i-*" {
  capabilities = ["create", "read", "update"]
}

path "sys/policies/acl/ec2-i-*" {
  capabilities = ["create", "read", "update", "delete"]
}
