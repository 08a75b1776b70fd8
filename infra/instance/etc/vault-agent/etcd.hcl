# A node of the profile alice_cluster-etcd. etcd reads its certificates at each new connection, so nothing needs a reload.

template {
  source      = "/etc/vault-agent/templates/etcd-server.ctmpl"
  destination = "/etc/etcd/pki/server.pem"
  perms       = "0600"
  user        = "etcd"
  group       = "etcd"
}

template {
  source      = "/etc/vault-agent/templates/etcd-peer.ctmpl"
  destination = "/etc/etcd/pki/peer.pem"
  perms       = "0600"
  user        = "etcd"
  group       = "etcd"
}

template {
  source      = "/etc/vault-agent/templates/ca-etcd_k8s.ctmpl"
  destination = "/etc/etcd/pki/ca.pem"
  perms       = "0644"
}
