//go:build unix && !linux

package parts

import "syscall"

// ownGroup puts a child into its own process group.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
