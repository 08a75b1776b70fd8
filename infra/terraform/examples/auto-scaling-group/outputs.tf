output "stack" {
  description = "The stack, for vault-ec2 doctor --stack … and vault-ec2 reconcile --stack …"
  value       = module.stack.name
}

output "group" {
  description = "The group; its instances are in service when they have their identity"
  value       = aws_autoscaling_group.worker.name
}
