terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.0"
    }
  }
}

provider "aws" {
  region = var.region
}

# VAULT_TOKEN is in the environment: docs/deploying.md says which rights it needs.
provider "vault" {
  address      = var.vault_addr
  ca_cert_file = var.vault_ca_file
}
