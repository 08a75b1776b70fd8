package parts

import "syscall"

// ownGroup puts a child into its own process group and has the kernel kill it
// when the lab dies without a chance to clean up.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
