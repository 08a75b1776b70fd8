# The module's own outputs come first. Each of the others is an output of template.yaml, its name in snake case.
# TestTerraform_ReturnsEachOutput compares them.

output "name" {
  description = "Name of the stack: deployment of infra/vault/terraform"
  value       = aws_cloudformation_stack.this.name
}

output "hook_prefix" {
  description = "Prefix of the names of the lifecycle hooks that this stack completes"
  value       = var.hook_prefix
}

output "function_roles" {
  description = "IAM role ARN of each function: function_roles of infra/vault/terraform"
  value = {
    provision   = aws_cloudformation_stack.this.outputs["ProvisionFunctionRoleArn"]
    deprovision = aws_cloudformation_stack.this.outputs["DeprovisionFunctionRoleArn"]
    reconcile   = aws_cloudformation_stack.this.outputs["ReconcileFunctionRoleArn"]
  }
}

output "version" {
  description = "Version of the release"
  value       = aws_cloudformation_stack.this.outputs["Version"]
}

output "table_name" {
  description = "Name of the table with the ledger"
  value       = aws_cloudformation_stack.this.outputs["TableName"]
}

output "provision_queue_url" {
  description = "URL of provision's queue"
  value       = aws_cloudformation_stack.this.outputs["ProvisionQueueUrl"]
}

output "provision_dead_letter_queue_url" {
  description = "URL of provision's dead-letter queue"
  value       = aws_cloudformation_stack.this.outputs["ProvisionDeadLetterQueueUrl"]
}

output "provision_dead_letter_queue_arn" {
  description = "ARN of provision's dead-letter queue, for aws sqs start-message-move-task"
  value       = aws_cloudformation_stack.this.outputs["ProvisionDeadLetterQueueArn"]
}

output "deprovision_queue_url" {
  description = "URL of deprovision's queue"
  value       = aws_cloudformation_stack.this.outputs["DeprovisionQueueUrl"]
}

output "deprovision_dead_letter_queue_url" {
  description = "URL of deprovision's dead-letter queue"
  value       = aws_cloudformation_stack.this.outputs["DeprovisionDeadLetterQueueUrl"]
}

output "deprovision_dead_letter_queue_arn" {
  description = "ARN of deprovision's dead-letter queue"
  value       = aws_cloudformation_stack.this.outputs["DeprovisionDeadLetterQueueArn"]
}

output "reconcile_queue_url" {
  description = "URL of reconcile's queue"
  value       = aws_cloudformation_stack.this.outputs["ReconcileQueueUrl"]
}

output "reconcile_dead_letter_queue_url" {
  description = "URL of reconcile's dead-letter queue"
  value       = aws_cloudformation_stack.this.outputs["ReconcileDeadLetterQueueUrl"]
}

output "reconcile_dead_letter_queue_arn" {
  description = "ARN of reconcile's dead-letter queue"
  value       = aws_cloudformation_stack.this.outputs["ReconcileDeadLetterQueueArn"]
}

output "provision_function_arn" {
  description = "ARN of the function provision"
  value       = aws_cloudformation_stack.this.outputs["ProvisionFunctionArn"]
}

output "deprovision_function_arn" {
  description = "ARN of the function deprovision"
  value       = aws_cloudformation_stack.this.outputs["DeprovisionFunctionArn"]
}

output "reconcile_function_arn" {
  description = "ARN of the function reconcile"
  value       = aws_cloudformation_stack.this.outputs["ReconcileFunctionArn"]
}

output "reconcile_function_name" {
  description = "Name of the function reconcile, which the doctor and a reconcile by hand invoke"
  value       = aws_cloudformation_stack.this.outputs["ReconcileFunctionName"]
}

output "provision_function_role_arn" {
  description = "IAM role for the Vault role <vault_login_role>-provision"
  value       = aws_cloudformation_stack.this.outputs["ProvisionFunctionRoleArn"]
}

output "deprovision_function_role_arn" {
  description = "IAM role for the Vault role <vault_login_role>-deprovision"
  value       = aws_cloudformation_stack.this.outputs["DeprovisionFunctionRoleArn"]
}

output "reconcile_function_role_arn" {
  description = "IAM role for the Vault role <vault_login_role>-reconcile"
  value       = aws_cloudformation_stack.this.outputs["ReconcileFunctionRoleArn"]
}

output "provision_log_group_name" {
  description = "Log group of the function provision"
  value       = aws_cloudformation_stack.this.outputs["ProvisionLogGroupName"]
}

output "deprovision_log_group_name" {
  description = "Log group of the function deprovision"
  value       = aws_cloudformation_stack.this.outputs["DeprovisionLogGroupName"]
}

output "reconcile_log_group_name" {
  description = "Log group of the function reconcile"
  value       = aws_cloudformation_stack.this.outputs["ReconcileLogGroupName"]
}

output "dashboard_name" {
  description = "Dashboard in CloudWatch"
  value       = aws_cloudformation_stack.this.outputs["DashboardName"]
}

output "event_bus_arn" {
  description = "Event bus to which other accounts and regions forward their events: central_event_bus_arn of the module member-account"
  value       = aws_cloudformation_stack.this.outputs["EventBusArn"]
}
