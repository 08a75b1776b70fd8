# The SSH host certificate of an instance whose profile has an ssh-role named sshd. Vault has no end of it to go by, so Agent has a new
# one signed about every five minutes (static_secret_render_interval); the command takes it into use when that is due.

template {
  source      = "/etc/vault-agent/templates/ssh-host.ctmpl"
  destination = "/etc/ssh/ssh_host_ed25519_key-cert.pub.vault"
  perms       = "0644"
  exec {
    command = ["/usr/local/lib/vault-agent/host-certificate", "/etc/ssh/ssh_host_ed25519_key-cert.pub.vault", "/etc/ssh/ssh_host_ed25519_key-cert.pub", "ssh.service"]
    timeout = "30s"
  }
}
