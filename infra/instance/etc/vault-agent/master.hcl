# A control plane node of the profile alice_cluster-master. The API server reloads a changed serving certificate by itself, and
# reads its client certificate for etcd at each connection.

template {
  source      = "/etc/vault-agent/templates/kube-apiserver.ctmpl"
  destination = "/etc/kubernetes/pki/apiserver.pem"
  perms       = "0600"
}

template {
  source      = "/etc/vault-agent/templates/apiserver-etcd-client.ctmpl"
  destination = "/etc/kubernetes/pki/apiserver-etcd-client.pem"
  perms       = "0600"
}

template {
  source      = "/etc/vault-agent/templates/kube-controller-manager.ctmpl"
  destination = "/etc/kubernetes/pki/controller-manager.pem"
  perms       = "0600"
  exec {
    command = ["systemctl", "--no-block", "try-reload-or-restart", "kube-controller-manager.service"]
    timeout = "30s"
  }
}

template {
  source      = "/etc/vault-agent/templates/kube-scheduler.ctmpl"
  destination = "/etc/kubernetes/pki/scheduler.pem"
  perms       = "0600"
  exec {
    command = ["systemctl", "--no-block", "try-reload-or-restart", "kube-scheduler.service"]
    timeout = "30s"
  }
}

template {
  source      = "/etc/vault-agent/templates/ca-k8s.ctmpl"
  destination = "/etc/kubernetes/pki/ca.pem"
  perms       = "0644"
}

template {
  source      = "/etc/vault-agent/templates/ca-etcd_k8s.ctmpl"
  destination = "/etc/kubernetes/pki/etcd-ca.pem"
  perms       = "0644"
}
