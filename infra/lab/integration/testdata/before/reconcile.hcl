# Made from the profiles by infra/vault: change those and run it again.

path "alice_cluster/pki/etcd_k8s/config/acme" {
  capabilities = ["read"]
}

path "alice_cluster/pki/etcd_k8s/roles" {
  capabilities = ["list"]
}

path "alice_cluster/pki/etcd_k8s/roles/i-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "alice_cluster/pki/etcd_overlay/config/acme" {
  capabilities = ["read"]
}

path "alice_cluster/pki/etcd_overlay/roles" {
  capabilities = ["list"]
}

path "alice_cluster/pki/etcd_overlay/roles/i-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "alice_cluster/pki/k8s/config/acme" {
  capabilities = ["read"]
}

path "alice_cluster/pki/k8s/roles" {
  capabilities = ["list"]
}

path "alice_cluster/pki/k8s/roles/i-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "alice_cluster/pki/k8s_api_proxy/config/acme" {
  capabilities = ["read"]
}

path "alice_cluster/pki/k8s_api_proxy/roles" {
  capabilities = ["list"]
}

path "alice_cluster/pki/k8s_api_proxy/roles/i-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "auth/aws/config/identity" {
  capabilities = ["read"]
}

path "auth/aws/config/sts" {
  capabilities = ["list"]
}

path "auth/aws/identity-accesslist" {
  capabilities = ["list"]
}

path "auth/aws/identity-accesslist/i-*" {
  capabilities = ["delete"]
}

path "auth/aws/role" {
  capabilities = ["list"]
}

path "auth/aws/role/i-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "identity/entity-alias/id" {
  capabilities = ["list"]
}

path "identity/entity/id/*" {
  capabilities = ["delete"]
}

path "identity/lookup/entity" {
  capabilities = ["update"]
}

path "sys/capabilities-self" {
  capabilities = ["update"]
}

path "sys/policies/acl" {
  capabilities = ["list"]
}

path "sys/policies/acl/ec2-i-*" {
  capabilities = ["create", "read", "update", "delete"]
}
