# What every instance has in common. VAULT_ADDR and VAULT_CACERT stand in /etc/vault-agent/vault.env.
# https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent

template_config {
  # A certificate that cannot be had now may be had later: Vault may be sealed, or the grant in repair.
  exit_on_retry_failure = false
}
