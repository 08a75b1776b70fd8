# Settings for all kinds of instances. VAULT_ADDR, VAULT_CACERT and VAULT_NAMESPACE are in /etc/vault-agent/vault.env. Agent reads them from
# its environment, for the login and the templates alike.
# https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent

template_config {
  # Vault may be sealed, or the grant in repair: a later try can succeed.
  exit_on_retry_failure = false
}
