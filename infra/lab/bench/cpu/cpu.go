// Package cpu reads the processor time that processes have used.
package cpu

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Of returns the processor time of another process, from the kernel's count in hundredths of a second; 0 if it is unknown.
// https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
func Of(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is the program's name in parentheses, which may contain any character.
	_, fields, _ := bytes.Cut(text, []byte(") "))
	var ticks time.Duration
	for i, f := range strings.Fields(string(fields)) {
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && (i == 11 || i == 12) {
			ticks += time.Duration(n)
		}
	}
	return ticks * time.Second / 100
}

// Self returns the processor time of this process, in user and system mode; 0 if it is unknown.
func Self() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
