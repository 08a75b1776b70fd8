# A worker of the profile alice_cluster-worker. Certificate, CA and key are one file, so that they change together. Use it for
# --tls-cert-file, --tls-private-key-file and a kubeconfig's client-certificate and client-key.

template {
  source      = "/etc/vault-agent/templates/kubelet.ctmpl"
  destination = "/etc/kubernetes/pki/kubelet.pem"
  perms       = "0600"
  exec {
    command = ["systemctl", "--no-block", "try-reload-or-restart", "kubelet.service"]
    timeout = "30s"
  }
}

template {
  source      = "/etc/vault-agent/templates/kube-proxy.ctmpl"
  destination = "/etc/kubernetes/pki/kube-proxy.pem"
  perms       = "0600"
  exec {
    command = ["systemctl", "--no-block", "try-reload-or-restart", "kube-proxy.service"]
    timeout = "30s"
  }
}

template {
  source      = "/etc/vault-agent/templates/ca-k8s.ctmpl"
  destination = "/etc/kubernetes/pki/ca.pem"
  perms       = "0644"
}
