# Each output of the template, its name in snake case. TestTerraform_ReturnsEachOutput compares them.

output "member_role_arn" {
  description = "Role that the central functions assume; null where the stack makes none"
  value       = try(aws_cloudformation_stack.this.outputs["MemberRoleArn"], null)
}

output "vault_role_arn" {
  description = "Role that Vault assumes, for this account's entry in sts_roles of infra/vault/terraform; null where the stack makes none"
  value       = try(aws_cloudformation_stack.this.outputs["VaultRoleArn"], null)
}
