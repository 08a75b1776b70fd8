package parts

import "syscall"

// ownGroup puts a child into its own process group. The kernel kills the child
// when the lab dies without a clean-up.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
