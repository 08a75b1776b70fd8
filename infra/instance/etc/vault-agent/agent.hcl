# Settings for all kinds of instances. VAULT_ADDR and VAULT_CACERT are in /etc/vault-agent/vault.env.
# https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent

template_config {
  # Vault may be sealed, or the grant in repair: a later try can succeed.
  exit_on_retry_failure = false
}
