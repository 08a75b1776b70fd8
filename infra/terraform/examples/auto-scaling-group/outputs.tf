output "stack" {
  description = "The stack, for make doctor STACK=… and make reconcile STACK=…"
  value       = module.stack.name
}

output "group" {
  description = "The group; its instances are in service when they have their identity"
  value       = aws_autoscaling_group.worker.name
}
